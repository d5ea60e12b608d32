"""What TensorRT's parser wants of a quantized graph, checked without TensorRT."""

from pathlib import Path

import numpy as np

__all__ = ["lint_tensorrt"]


def lint_tensorrt(path: str | Path) -> list[str]:
    """Return sentences on what TensorRT would refuse or run slowly; none for a good file.

    Every integer is int8 with zero point 0, activations have one scale, weights one per channel, and nothing but
    activations and weights is quantized. https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    biases = {node.input[2] for node in graph.node if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 2}
    problems = []
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero_point = constants.get(node.input[1]), constants.get(node.input[2])
        is_weight = node.op_type == "DequantizeLinear" and node.input[0] in constants
        if scale is None or zero_point is None:
            problems.append(f"{node.name} has a scale or zero point that is no constant")
            continue
        if zero_point.dtype != np.int8:
            problems.append(f"{node.name} is {zero_point.dtype} instead of int8")
        if zero_point.any():
            problems.append(f"{node.name} has a zero point other than 0")
        if is_weight != (scale.ndim == 1 and scale.size > 1) and constants.get(node.input[0], scale).size > 1:
            problems.append(f"{node.name} has {scale.size} scales for {'a weight' if is_weight else 'an activation'}")
        if node.output[0] in biases:
            problems.append(f"{node.name} quantizes a bias")
    return problems
