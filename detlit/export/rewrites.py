"""Changes to an exported graph that keep its values and let more of it run on integers."""

from collections import defaultdict

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["quantize_choices", "scale_residuals", "strip_debug_information"]


def scale_residuals(graph: onnx.GraphProto) -> int:
    """Let ``alpha * dequantize(x, scale)`` become ``dequantize(x, alpha * scale)``, and return how often.

    A multiplication between a dequantization and a sum keeps runtimes from adding integers. Exact for ``alpha > 0``.
    """
    makers, constants = _makers(graph), _constants(graph)
    count = 0
    for node in list(graph.node):
        if node.op_type != "Mul":
            continue
        for x, factor in (node.input, reversed(node.input)):
            maker, alpha = makers.get(x), constants.get(factor)
            if maker is None or maker.op_type != "DequantizeLinear" or alpha is None or alpha.size != 1:
                continue
            scale = constants.get(maker.input[1])
            if scale is None or scale.size != 1 or float(alpha.reshape(())) <= 0:
                continue
            name = f"{node.output[0]}_scale"
            scaled = np.asarray(scale * alpha.reshape(()), dtype=scale.dtype).reshape(scale.shape)
            graph.initializer.append(numpy_helper.from_array(scaled, name))
            inputs = [maker.input[0], name, *maker.input[2:]]
            replacement = onnx.helper.make_node("DequantizeLinear", inputs, [node.output[0]], name=f"{node.name}_dq")
            graph.node.insert(list(graph.node).index(node), replacement)
            graph.node.remove(node)
            count += 1
            break
    _drop_unused(graph)
    return count


def quantize_choices(graph: onnx.GraphProto) -> int:
    """Put quantization behind pooling and nearest upsampling of quantized values, and return how often.

    They choose among the values they read, so the same scale and zero point change nothing, and the runtime can choose
    among integers.
    """
    makers = _makers(graph)
    count = 0
    for node in list(graph.node):
        chooses = node.op_type == "MaxPool" or (
            node.op_type == "Resize" and any(a.name == "mode" and a.s == b"nearest" for a in node.attribute)
        )
        maker = makers.get(node.input[0]) if chooses else None
        if maker is None or maker.op_type != "DequantizeLinear":
            continue
        output, parameters = node.output[0], list(maker.input[1:])
        node.output[0] = f"{output}_chosen"
        position = list(graph.node).index(node)
        quantized = f"{output}_quantized"
        rounding = onnx.helper.make_node(
            "QuantizeLinear", [node.output[0], *parameters], [quantized], name=f"{node.name}_q"
        )
        back = onnx.helper.make_node("DequantizeLinear", [quantized, *parameters], [output], name=f"{node.name}_dq")
        graph.node.insert(position + 1, rounding)
        graph.node.insert(position + 2, back)
        makers[output] = back
        count += 1
    return count


def strip_debug_information(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which are half of a small file and name folders of the machine it ran on."""
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in graph.node for output in node.output}


def _constants(graph: onnx.GraphProto) -> dict[str, "np.ndarray"]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove constants that nothing reads."""
    used: dict[str, bool] = defaultdict(bool)
    for node in graph.node:
        for name in node.input:
            used[name] = True
    for tensor in [tensor for tensor in graph.initializer if not used[tensor.name]]:
        graph.initializer.remove(tensor)
