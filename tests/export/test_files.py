"""Exported files find what the detector finds, in every runtime, at every size and number of images."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detlit import Predictor
from detlit.cli import main
from detlit.errors import CheckpointError, ConfigurationError, ExportError
from detlit.export import Suppression, compare, export_file, open_exported
from detlit.export.comparison import Comparison, Row
from detlit.export.detections import read_detections
from detlit.export.files import Format
from detlit.export.graph import exportable
from detlit.export.suppression import SuppressedDetector
from detlit.export.verify import FLOAT
from detlit.postprocess import MatrixNMS, NMSPostPredictionCallback
from tests.prediction.media import shapes_images
from tests.shapes_detector import CHECKPOINT, shapes_detector

pytest.importorskip("onnxruntime")
if not hasattr(torch.onnx, "ops"):
    pytest.skip("export needs torch 2.8", allow_module_level=True)

NAMES = ["a", "b", "c", "d", "e", "f"]
GUIDES = Path(__file__).parents[2] / "notebooks" / "guides"


@pytest.fixture(scope="module")
def batch_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an ONNX file with its suppression in it."""
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    return export_file(shapes_detector(), path, nms="batch", class_names=NAMES)


def detected(nms: Any, images: torch.Tensor, **settings: Any) -> tuple[Any, Any]:
    """Return the detections of the graph, computed by torch, and those of the callback."""
    suppression = Suppression(**settings)
    decoded = exportable(shapes_detector())
    model = SuppressedDetector(decoded, suppression, nms)
    with torch.no_grad():
        outputs = model(images)
        expected = NMSPostPredictionCallback(**suppression.to_dict()).suppress(
            *decoded(images), tuple(images.shape[2:])
        )
    names = ["detections"] if nms == "flat" else ["num_detections", "boxes", "scores", "labels"]
    arrays = {name: value.numpy() for name, value in zip(names, outputs, strict=True)}
    return read_detections(arrays, nms, len(images)), expected


@pytest.mark.parametrize("nms", ["flat", "batch"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"score_threshold": 0.0},
        {"score_threshold": 0.05, "nms_threshold": 0.3},
        {"score_threshold": 0.01, "max_predictions": 5},
        {"score_threshold": 0.01, "nms_top_k": 20},
        {"score_threshold": 0.01, "multi_label_per_box": False},
        {"score_threshold": 0.01, "class_agnostic_nms": True, "nms_threshold": 0.1},
        {"score_threshold": 0.01, "clip": True},
    ],
    ids=lambda settings: "-".join(settings) or "defaults",
)
@pytest.mark.parametrize("size", [32, 128])
def test_the_suppression_of_the_graph_is_that_of_the_callback(nms: Any, settings: dict[str, Any], size: int) -> None:
    images = torch.from_numpy(np.stack([image[:size, :size] for image in shapes_images(4)])).permute(0, 3, 1, 2)
    found, expected = detected(nms, images.contiguous(), **settings)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours["boxes"], theirs["boxes"])
        torch.testing.assert_close(ours["scores"], theirs["scores"])
        assert ours["labels"].tolist() == theirs["labels"].tolist()


def test_what_is_beyond_the_detections_is_minus_one() -> None:
    model = SuppressedDetector(exportable(shapes_detector()), Suppression(), "batch")
    count, boxes, scores, labels = model(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert count.flatten().tolist() == [0, 0]
    assert (boxes == -1).all()
    assert (scores == -1).all()
    assert (labels == -1).all()


def test_the_file_finds_what_the_detector_finds(batch_file: Path) -> None:
    comparison = compare(shapes_detector(), open_exported(batch_file), shapes_images(8)).require()
    assert {(row.size, row.batch) for row in comparison.rows} >= {
        (size, batch) for size in ((256, 256), (320, 448), (640, 640)) for batch in (1, 3, 8)
    }
    assert sum(row.detections for row in comparison.rows) > 200


def test_the_predictor_runs_the_file(batch_file: Path) -> None:
    images = [image[:100] for image in shapes_images(5)]
    ours, theirs = Predictor(batch_file)(images), Predictor(CHECKPOINT, device="cpu", score_threshold=0.25)(images)
    for exported, original in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(exported.boxes, original.boxes, atol=1e-2)
        np.testing.assert_array_equal(exported.labels, original.labels)
        assert exported.class_names == tuple(NAMES)
    strict = Predictor(batch_file, score_threshold={"a": 0.9}, classes=["a"], rectangular=True)
    assert all(name == "a" and len(r) for r in strict(images) for name in r.names)
    with pytest.raises(ConfigurationError, match=r"holds its suppression, with score_threshold=0.25 .* raise score_"):
        Predictor(batch_file, score_threshold=0.1)
    with pytest.raises(ConfigurationError, match="leave nms_threshold"):
        Predictor(batch_file, nms_threshold=0.5)
    with pytest.raises(ConfigurationError, match="runs on the CPU as it was exported"):
        Predictor(batch_file, precision="bfloat16")


def test_the_script_of_the_guide_needs_no_detlit(batch_file: Path) -> None:
    source = (GUIDES / "detect_onnx.py").read_text()
    assert "detlit" not in source.split('"""')[2]
    assert len(source.splitlines()) <= 50
    script = runpy.run_path(str(GUIDES / "detect_onnx.py"))
    session = open_exported(batch_file).session  # type: ignore[union-attr]
    image = shapes_images(3)[2]
    for shown in (image, cv2.resize(image, (300, 200))):
        found = script["detect"](session, shown)
        (expected,) = Predictor(batch_file)(shown)
        assert [name for name, _, _ in found] == expected.names
        np.testing.assert_allclose([box for _, _, box in found], expected.boxes, atol=1.0)


def detect_onnx(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(GUIDES / "detect_onnx.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_of_the_guide_says_what_it_cannot_read(batch_file: Path, tmp_path: Path) -> None:
    image = shapes_images(3)[2]
    np.save(tmp_path / "image.npy", image)
    found = detect_onnx(batch_file, tmp_path / "image.npy")
    (expected,) = Predictor(batch_file)(image)
    assert [line.split()[0] for line in found.stdout.splitlines()] == expected.names
    for arguments in ((batch_file, tmp_path / "image.jpg"), (batch_file,)):
        refused = detect_onnx(*arguments)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("give an ONNX file and an image as NumPy saves it: ")
        assert len(refused.stderr.splitlines()) == 1
    for nms in ("none", "flat"):
        export_file(shapes_detector(), tmp_path / f"{nms}.onnx", nms=nms)
        refused = detect_onnx(tmp_path / f"{nms}.onnx", tmp_path / "image.npy")
        sentence = "this ONNX file does not hold its suppression as read here: export it with --nms batch.\n"
        assert (refused.returncode, refused.stderr) == (1, sentence)


def test_the_handler_of_the_serving_guide(batch_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (GUIDES / "serving.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "models" / "detector" / "1").mkdir(parents=True)
    shutil.copy(batch_file, tmp_path / "models" / "detector" / "1" / "model.onnx")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    encoded = cv2.imencode(".png", shapes_images(3)[2][..., ::-1])[1].tobytes()
    assert len(json.loads(names["handle"](encoded))["detections"]) == 3


def test_the_file_says_how_it_is_used(batch_file: Path) -> None:
    metadata = open_exported(batch_file).metadata
    assert metadata["class_names"] == NAMES
    assert metadata["post_prediction"]["score_threshold"] == metadata["score_threshold"] == 0.25
    assert (metadata["nms"], metadata["dynamic"], metadata["input"]) == ("batch", ["batch", "size"], "uint8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "torch_export", "nms": "flat"}, "nms='flat' is for onnx and openvino"),
        ({"format": "torchscript", "opset": 18}, "opset=18 is of ONNX"),
        ({"format": "tflite"}, "format='tflite' is unknown: choose among onnx, openvino"),
        ({"nms": "some"}, "nms='some' is unknown"),
        ({"dynamic": ["width"]}, r"dynamic=\['width'\]"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        export_file(shapes_detector(), tmp_path / "model", **options)
    assert not list(tmp_path.iterdir())


def test_other_callbacks_stay_outside() -> None:
    with pytest.raises(ConfigurationError, match="MatrixNMS cannot be put into an exported file"):
        Suppression.of(MatrixNMS(), 0.25)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"model\.onnx cannot be run"):
        open_exported(tmp_path / "model.onnx")
    for name in ("gone.onnx", "gone.xml", "gone.pt2"):
        with pytest.raises(CheckpointError, match=f"there is no file .*{name}"):
            open_exported(tmp_path / name)


def test_a_bad_comparison_is_refused() -> None:
    good, bad = Row((64, 64), 1, 9, 0, 1e-3, 1e-6), Row((64, 64), 3, 9, 0, 0.5, 1e-6)
    missing = Row((64, 64), 8, 9, 1, 1e-3, 1e-6)
    comparison = Comparison("runtime", [good, bad, missing], FLOAT, quantized=False)
    assert comparison.failures == [bad, missing]
    assert str(comparison).count("NOT GOOD") == 2
    with pytest.raises(ExportError, match=r"in 2 of 3 comparisons, by up to 0\.5 pixels"):
        comparison.require()


def test_images_without_objects_compare_nothing(batch_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing can be compared"):
        compare(shapes_detector(), open_exported(batch_file), [np.zeros((64, 64, 3), np.uint8)], sizes=(), batches=(1,))


def test_the_command_exports_a_program_and_verifies_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for number, image in enumerate(shapes_images(4)):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image[..., ::-1])
    arguments = [
        "export",
        "--ckpt_path",
        str(CHECKPOINT),
        "--output",
        str(tmp_path / "model"),
        "--format",
        "torch_export",
    ]
    verified = ["--verify", "--images", str(tmp_path / "images")]
    assert main([*arguments, "--score_threshold", "0.3", "--max_predictions", "50", *verified]) == 0
    assert capsys.readouterr().out.count(" ok\n") == 12
    settings = open_exported(tmp_path / "model.pt2").metadata["post_prediction"]
    assert (settings["score_threshold"], settings["max_predictions"]) == (0.3, 50)
    found = list(Predictor(tmp_path / "model.pt2")(tmp_path / "images"))
    expected = list(Predictor(CHECKPOINT, score_threshold=0.3, device="cpu")(tmp_path / "images"))
    assert [result.names for result in found] == [result.names for result in expected]
    assert main(arguments) == 2
    assert "there is a file" in capsys.readouterr().err
    assert main([*arguments[:4], str(tmp_path / "b"), "--verify"]) == 2
    assert "set --images" in capsys.readouterr().err


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("format", ["torchscript", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_verified_file_has_its_name_only_if_it_is_good(
    format: Format, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), shapes_images(1)[0])
    row = Row((64, 64), 1, detections=3, unmatched=0, max_box=0.0 if good else 9.0, max_score=0.0)
    found = Comparison("OpenVINO", [row], FLOAT, quantized=False)
    monkeypatch.setattr("detlit.cli.export.compare", lambda *_, **__: found)
    arguments = ["export", "--ckpt_path", str(CHECKPOINT), "--output", str(tmp_path / "model"), "--format", format]
    status = main([*arguments, "--verify", "--images", str(tmp_path / "image.png")])
    name = "model" if good else "model.unverified"
    assert status == (0 if good else 1)
    suffixes = [".bin", ".xml"] if format == "openvino" else [".torchscript"]
    assert sorted(path.name for path in tmp_path.glob("model*")) == [f"{name}{suffix}" for suffix in suffixes]
    boxes, scores = open_exported(tmp_path / f"{name}{suffixes[-1]}")(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert boxes.shape[:2] == scores.shape[:2]
    assert good or f"The file is kept as {tmp_path / name}{suffixes[-1]}." in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("nms", ["none", "flat", "batch"])
@pytest.mark.parametrize("format", ["onnx", "openvino", "torch_export", "torchscript"])
@pytest.mark.parametrize(
    "options",
    [{}, {"input_dtype": "float32"}, {"dynamic": ["batch"]}, {"dynamic": []}, {"half": True}],
    ids=lambda options: "-".join(options) or "defaults",
)
def test_every_file_finds_what_the_detector_finds(
    format: Any, nms: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    if format.startswith("torch") and nms != "none":
        pytest.skip("refused")
    path = export_file(shapes_detector(), tmp_path / "model", format=format, nms=nms, **options)
    session = open_exported(path)
    half = bool(options.get("half"))
    comparison = compare(shapes_detector(), session, shapes_images(8), half=half).require()
    dynamic = options.get("dynamic", ["batch", "size"])
    assert len(comparison.rows) == (3 if "batch" in dynamic else 1) * (4 if "size" in dynamic else 1)
    (found,) = Predictor(path)(shapes_images(3)[2])
    assert len(found) > 0
    assert json.loads(found.to_json())["detections"]
