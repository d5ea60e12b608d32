"""ONNX files that compute what the detector does."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
if not hasattr(torch.onnx, "ops"):
    pytest.skip("export needs torch 2.8", allow_module_level=True)
import onnx
from onnx import TensorProto, helper, numpy_helper

from detlit.errors import CheckpointError, ConfigurationError, ExportError, MissingExtraError
from detlit.export import DecodedDetector, OnnxSession, Tolerance, export_onnx, lint_tensorrt, verify
from detlit.export.graph import exportable
from detlit.export.rewrites import quantize_choices, scale_residuals
from detlit.export.verify import FLOAT
from detlit.models import Detector
from detlit.quantization import Quantization, quantize
from detlit.structures import Preprocessing
from tests.shapes_detector import (
    calibration_images,
    map_of,
    map_of_decoded,
    shapes_detector,
    validation_batches,
)
from tests.tiny import tiny_detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def float_file(folder: Path) -> Path:
    return export_onnx(
        shapes_detector(), folder / "float.onnx", class_names=list("abcdef"), metadata={"score_threshold": 0.4}
    )


@cache
def quantized() -> Detector:
    return quantize(shapes_detector(), calibration_images()).detector


@pytest.fixture(scope="module")
def int8_file(folder: Path) -> Path:
    return export_onnx(quantized(), folder / "int8.onnx")


def decoded(detector: Detector, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        boxes, scores = DecodedDetector(detector)(images)
    return boxes, scores


def images(count: int = 3, height: int = 128, width: int = 128) -> Tensor:
    """Return real scenes, cut or repeated to a size."""
    whole = validation_batches()[0].images[:count].repeat(1, 1, 2, 2)
    return whole[:, :, :height, :width].contiguous()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("count", "height", "width"), [(1, 128, 128), (3, 128, 128), (8, 96, 256), (2, 224, 64)])
def test_any_batch_and_size_gives_what_torch_does(float_file: Path, count: int, height: int, width: int) -> None:
    batch = images(count, height, width)
    boxes, scores = decoded(shapes_detector(), batch)
    found_boxes, found_scores = OnnxSession(float_file)(batch)
    torch.testing.assert_close(found_boxes, boxes, rtol=0, atol=1e-2)
    torch.testing.assert_close(found_scores, scores, rtol=0, atol=1e-4)


def test_decoding_is_that_of_detection(float_file: Path) -> None:
    assert map_of_decoded(OnnxSession(float_file)) == pytest.approx(map_of(shapes_detector()), abs=5e-4)


def test_the_metadata_say_what_a_reader_needs(float_file: Path) -> None:
    metadata = OnnxSession(float_file).metadata
    assert metadata["class_names"] == list("abcdef")
    assert Preprocessing.from_dict(metadata["preprocessing"]) == Preprocessing(size=(128, 128))
    assert (metadata["input"], metadata["score_threshold"]) == ("uint8", 0.4)


def test_the_file_names_no_folder(float_file: Path, int8_file: Path) -> None:
    for file in (float_file, int8_file):
        content = file.read_bytes()
        for text in (str(Path(__file__).parents[2]), "site-packages", "File "):
            assert text.encode() not in content


def test_sizes_can_be_fixed(folder: Path) -> None:
    path = export_onnx(shapes_detector(), folder / "fixed.onnx", dynamic=(), input_dtype="float32")
    (graph_input,) = onnx.load(path).graph.input
    assert [axis.dim_value for axis in graph_input.type.tensor_type.shape.dim] == [1, 3, 128, 128]
    batch = images(1)
    boxes, scores = decoded(shapes_detector(), batch)
    found_boxes, found_scores = OnnxSession(path)(batch.float() / 255)
    torch.testing.assert_close(found_boxes, boxes, rtol=0, atol=1e-2)
    torch.testing.assert_close(found_scores, scores, rtol=0, atol=1e-4)


def test_normalization_and_channel_order_are_in_the_graph(folder: Path) -> None:
    detector = shapes_detector()
    preprocessing = Preprocessing((128, 128), channel_order="BGR", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    detector.set_preprocessing(preprocessing)
    path = export_onnx(detector, folder / "bgr.onnx", dynamic=("batch",))
    batch = images(2)
    _, scores = decoded(detector, batch)
    torch.testing.assert_close(OnnxSession(path)(batch)[1], scores, rtol=0, atol=1e-4)
    assert float((scores - decoded(shapes_detector(), batch)[1]).abs().max()) > 0.1


def test_the_detector_is_not_changed(int8_file: Path) -> None:
    assert quantized().fused == "partial"
    assert not [name for name in quantized().state_dict() if "integers" in name]


# --------------------------------------------------------------------------------------------------- integers
def test_integers_keep_the_map(int8_file: Path) -> None:
    in_torch, floating = map_of(quantized()), map_of(shapes_detector())
    in_runtime = map_of_decoded(OnnxSession(int8_file))
    assert in_runtime >= floating - 0.010
    assert in_runtime == pytest.approx(in_torch, abs=0.005)


def test_a_good_file_is_good(int8_file: Path, float_file: Path) -> None:
    batches = [images(1), images(3), images(2, 96, 192)]
    done = verify(quantized(), int8_file, batches, float_path=float_file, score=map_of_decoded).require()
    runtimes = {parity.runtime: parity for parity in done.parities}
    assert runtimes["ONNX Runtime"].max_box <= 2
    assert runtimes["ONNX Runtime"].mean_box <= 0.15
    assert done.size_ratio is not None
    assert done.size_ratio <= 0.30
    assert done.integer_share >= 0.9
    assert done.speed_ratio is not None
    text = str(done)
    assert "convolutions on integers in ONNX Runtime: 70 of 76 (92.1%)" in text
    assert text.splitlines()[2].startswith("ONNX Runtime")


def test_weights_are_integers_in_the_file(int8_file: Path) -> None:
    graph = onnx.load(int8_file).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    for node in convolutions:
        source = makers[node.input[1]]
        assert source.op_type == "DequantizeLinear"
        assert constants[source.input[0]].data_type == TensorProto.INT8
    assert len(convolutions) == 78


def test_the_residual_scale_is_in_the_dequantization(int8_file: Path) -> None:
    graph = onnx.load(int8_file).graph
    makers = {node.output[0]: node for node in graph.node}
    residuals = [
        node
        for node in graph.node
        if node.op_type == "Add"
        and all(getattr(makers.get(x), "op_type", "") == "DequantizeLinear" for x in node.input)
    ]
    assert len(residuals) == len([name for name, _ in quantized().named_parameters() if name.endswith("alpha")])


@pytest.mark.parametrize("alpha", [0.7, -0.7])
def test_scaling_residuals_keeps_the_values_and_needs_a_positive_factor(alpha: float, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["real"], name="dq"),
        helper.make_node("Mul", ["alpha", "real"], ["scaled"], name="mul"),
        helper.make_node("Add", ["scaled", "real"], ["y"]),
    ]
    constants = {"scale": np.float32(0.25), "zero": np.uint8(7), "alpha": np.array([alpha], np.float32)}
    model = small_model(nodes, constants, (TensorProto.UINT8, [4]), [4])
    x = np.array([0, 7, 9, 255], np.uint8)
    (before,) = run(model, x)
    assert scale_residuals(model.graph) == (alpha > 0)
    (after,) = run(model, x)
    np.testing.assert_allclose(after, before, rtol=1e-6)
    assert [node.op_type for node in model.graph.node].count("Mul") == (alpha <= 0)


def test_pooling_chooses_among_integers() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["real"], name="dq"),
        helper.make_node("MaxPool", ["real"], ["y"], name="pool", kernel_shape=[2, 2]),
    ]
    constants = {"scale": np.float32(0.3), "zero": np.uint8(7)}
    model = small_model(nodes, constants, (TensorProto.UINT8, [1, 1, 3, 3]), [1, 1, 2, 2])
    x = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    (before,) = run(model, x)
    assert quantize_choices(model.graph) == 1
    (after,) = run(model, x)
    np.testing.assert_array_equal(after, before)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["DequantizeLinear", "MaxPool", "QuantizeLinear", "DequantizeLinear"]


def small_model(nodes: list[Any], constants: dict[str, Any], x: tuple[int, list[int]], y: list[int]) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("x", *x)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------------------------- tensorrt
def test_a_graph_for_tensorrt_passes_its_lint(folder: Path, int8_file: Path) -> None:
    detector = quantize(shapes_detector(), calibration_images(), Quantization("tensorrt")).detector
    path = export_onnx(detector, folder / "tensorrt.onnx", dynamic=("batch",))
    assert lint_tensorrt(path) == []
    assert any("is uint8 instead of int8" in problem for problem in lint_tensorrt(int8_file))
    verification = verify(detector, path, [images(2)])
    assert [parity.runtime for parity in verification.parities] == ["ONNX Runtime"]
    assert not verification.failures


def test_the_lint_names_what_is_wrong(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scales", "zeros"], ["q"], name="q", axis=0),
        helper.make_node("DequantizeLinear", ["q", "scales", "zeros"], ["real"], name="dq", axis=0),
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["weight"], name="per_tensor"),
        helper.make_node("DequantizeLinear", ["b", "scale", "zero"], ["bias"], name="quantized_bias"),
        helper.make_node("Conv", ["real", "weight", "bias"], ["y"]),
    ]
    constants = {
        "scales": np.array([1, 2], np.float32),
        "zeros": np.array([0, 5], np.int8),
        "scale": np.float32(1),
        "zero": np.int8(0),
        "w": np.ones((2, 2, 1, 1), np.int8),
        "b": np.ones(2, np.int8),
    }
    model = small_model(nodes, constants, (TensorProto.FLOAT, [2, 2, 1, 1]), [2, 2, 1, 1])
    onnx.save(model, tmp_path / "bad.onnx")
    problems = "\n".join(lint_tensorrt(tmp_path / "bad.onnx"))
    assert "q has a zero point other than 0" in problems
    assert "dq has 2 scales for an activation" in problems
    assert "per_tensor has 1 scales for a weight" in problems
    assert "quantized_bias quantizes a bias" in problems


# ------------------------------------------------------------------------------------------------- not good
def test_a_file_of_other_weights_is_not_called_good(float_file: Path) -> None:
    detector = shapes_detector()
    with torch.no_grad():
        detector.head.levels[0].reg_pred.bias[3] += 1.0
    found = verify(detector, float_file, [images(8)], score=map_of_decoded)
    with pytest.raises(ExportError, match=r"the exported file is not good: in ONNX Runtime a box is off by .* pixels"):
        found.require()
    assert "NOT GOOD" in str(found)


def test_each_tolerance_is_looked_at(float_file: Path) -> None:
    detector = shapes_detector()
    with torch.no_grad():
        detector.head.levels[0].reg_pred.bias[3] += 0.05
        detector.head.levels[0].cls_pred.bias[0] += 0.05
    wide = {"max_box": 1e3, "mean_box": 1e3, "max_score": 1.0, "max_score_drop": 1.0}
    batch = [images(8)]
    assert not verify(detector, float_file, batch, tolerance=Tolerance(**wide)).failures
    for name, text in (("max_box", "a box is"), ("mean_box", "boxes are"), ("max_score", "a score is")):
        failures = verify(detector, float_file, batch, tolerance=Tolerance(**{**wide, name: 1e-6})).failures
        assert failures
        assert all(text in failure for failure in failures)
    scores = iter([0.5, 0.4, 0.5])
    found = verify(
        detector,
        float_file,
        batch,
        tolerance=Tolerance(**{**wide, "max_score_drop": 0.05}),
        score=lambda predict: next(scores),
    )
    assert found.failures == ["in ONNX Runtime the mAP is off by 0.1000 (at most 0.05)"]


def test_a_random_network_tells_nothing(folder: Path) -> None:
    detector = tiny_detector().eval()
    detector.set_preprocessing(Preprocessing((64, 64)))
    path = export_onnx(detector, folder / "random.onnx", dynamic=("batch",))
    with pytest.raises(ConfigurationError, match=r"no box on the images scores above 0\.3"):
        verify(detector, path, [images(1, 64, 64)])


def test_numbers_that_are_none_fail() -> None:
    from detlit.export.verify import Parity, _failures

    nan = float("nan")
    assert len(_failures(Parity("x", 1, nan, nan, nan, nan), 0.5, FLOAT)) == 4


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="quantized but not calibrated"):
        export_onnx(shapes_detector().quantize(Quantization()), tmp_path / "x.onnx")
    with pytest.raises(ConfigurationError, match=r"dynamic=\['depth'\], input_dtype='uint8', nms='none' is unknown"):
        export_onnx(shapes_detector(), tmp_path / "x.onnx", dynamic=("depth",))  # type: ignore[arg-type]
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'detlit\[onnx\]'"):
        export_onnx(shapes_detector(), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_run_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*no\.onnx"):
        OnnxSession(tmp_path / "no.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"bad\.onnx cannot be run"):
        OnnxSession(tmp_path / "bad.onnx")


def test_an_exportable_copy_rounds_as_the_detector() -> None:
    copy = exportable(quantized())
    assert copy.detector.fused == "full"
    conv = copy.detector.backbone.stem.conv
    assert conv.weight_integers.dtype == torch.int8
