"""The whole road: from floating point through training with rounding errors to detections where torch is not."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
if not hasattr(torch.onnx, "ops"):
    pytest.skip("export needs torch 2.8", allow_module_level=True)

from detlit.cli import main
from detlit.data import ShapesDataset
from detlit.export import Suppression, export_onnx
from detlit.export.verify import QUANTIZED, count_operators
from detlit.models import Detector
from detlit.models.checkpoint_entry import detector_from_checkpoint, read_checkpoint
from detlit.postprocess import NMSPostPredictionCallback
from detlit.quantization import quantize
from tests.shapes_detector import CHECKPOINT, calibration_images, shapes_data, shapes_detector

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "notebooks" / "guides"

NAMES = ["circle", "triangle", "square", "star", "ring", "cross"]

PROGRAM = """
import json
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "lightning", "detlit"):
            raise ModuleNotFoundError(f"{name} is not installed here")


sys.meta_path.insert(0, Absent())
try:
    import torch
except ModuleNotFoundError:
    from detect_onnx import detect

import numpy
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
print(json.dumps([detect(session, image) for image in numpy.load(sys.argv[2])]))
"""
"""Detects with the guide's script, which it can only import where torch cannot be."""

Found = list[tuple[str, float, list[float]]]
"""Class name, score and xyxy box in pixels of each detection of an image."""


def pictures(count: int) -> Tensor:
    """Return images ``(count, 3, 128, 128)`` uint8 that no one has trained on, of the network's size."""
    dataset = shapes_data(val=count).dataset("val")
    loaded = np.stack([dataset.load_image(index) for index in range(count)])  # type: ignore[union-attr]
    return torch.from_numpy(loaded).permute(0, 3, 1, 2)


def found_without_torch(file: Path, images: Tensor) -> list[Found]:
    saved = file.with_suffix(".npy")
    np.save(saved, images.permute(0, 2, 3, 1).numpy())
    command = [sys.executable, "-c", PROGRAM, str(file), str(saved)]
    done = subprocess.run(command, cwd=GUIDE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [[(name, score, box) for name, score, box in image] for image in json.loads(done.stdout)]


@torch.no_grad()
def found_by_torch(detector: Detector, images: Tensor, threshold: float) -> list[Found]:
    detections = NMSPostPredictionCallback(score_threshold=threshold)(detector.eval()(images))
    return [
        [
            (NAMES[label], score, box)
            for label, score, box in zip(
                each["labels"].tolist(), each["scores"].tolist(), each["boxes"].tolist(), strict=True
            )
        ]
        for each in detections
    ]


def assert_agreement(expected: list[Found], found: list[Found]) -> None:
    """Require a counterpart of its class for each detection, as near in box and score as an integer file has to be."""
    assert sum(map(len, expected)) >= 3 * len(expected) / 2
    distances = []
    for ours, theirs in zip(expected, found, strict=True):
        assert sorted(name for name, _, _ in ours) == sorted(name for name, _, _ in theirs)
        for name, score, box in ours:
            same = [(np.abs(np.subtract(box, other)), value) for label, value, other in theirs if label == name]
            distance, value = min(same, key=lambda pair: float(pair[0].max()))
            assert distance.max() <= QUANTIZED.max_box
            assert abs(score - value) <= QUANTIZED.max_score
            distances.append(float(distance.mean()))
    assert np.mean(distances) <= QUANTIZED.mean_box


def test_integers_detect_without_torch(tmp_path: Path) -> None:
    """The last mile alone, calibrated instead of trained, on a few images."""
    quantized = quantize(shapes_detector(), calibration_images(1)).detector
    settings = Suppression.of(NMSPostPredictionCallback(), 0.5)
    options: Any = {"class_names": NAMES, "nms": "batch", "dynamic": (), "suppression": settings}
    file = export_onnx(quantized, tmp_path / "int8.onnx", **options)
    images = pictures(4)
    assert_agreement(found_by_torch(quantized, images, 0.5), found_without_torch(file, images))


def write_coco(folder: Path, split: str, seed: int, count: int) -> None:
    """Write shapes as the data set in COCO's format that the README speaks of."""
    dataset = ShapesDataset(count, image_size=128, seed=seed)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "images" / split).mkdir(parents=True)
    objects = []
    for index in range(count):
        Image.fromarray(dataset.load_image(index)).save(folder / "images" / split / f"{index}.png")
        target = dataset.load_target(index)
        for (left, top, right, bottom), label in zip(target["boxes"], target["labels"], strict=True):
            box = [float(left), float(top), float(right - left), float(bottom - top)]
            found = {"id": len(objects) + 1, "image_id": index, "category_id": int(label), "bbox": box, "iscrowd": 0}
            objects.append({**found, "area": box[2] * box[3]})
    images = [{"id": index, "file_name": f"{index}.png", "height": 128, "width": 128} for index in range(count)]
    categories = [{"id": label, "name": name} for label, name in enumerate(NAMES)]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_the_commands_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As they stand there: one file serves detlit predict and the script without torch."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## To 8-bit integers\n")[1]
    commands = section.split("```bash\n")[1].split("```")[0].replace("\\\n", "").splitlines()
    assert [line.split()[:2] for line in commands] == [
        ["detlit", "quantize"],
        ["detlit", "predict"],
        ["python", "notebooks/guides/detect_onnx.py"],
    ]
    monkeypatch.chdir(tmp_path)
    stored = torch.load(CHECKPOINT, weights_only=True)
    stored["detlit"]["score_threshold"] = 0.4385  # as training leaves it
    torch.save(stored, "best.ckpt")
    write_coco(tmp_path / "my_data", "train", 0, 32)
    write_coco(tmp_path / "my_data", "val", 1, 24)
    (tmp_path / "IMAGE_OR_FOLDER").mkdir()
    image = ShapesDataset(3, image_size=128, seed=1).load_image(2)
    Image.fromarray(image).save("IMAGE_OR_FOLDER/image.png")
    np.save("image.npy", image)

    quantized, predicted, detected = (shlex.split(line) for line in commands)
    assert main(quantized[1:]) == 0
    assert "verified and written to int8.onnx" in capfd.readouterr().out
    assert main(predicted[1:]) == 0
    results = json.loads((tmp_path / "predictions" / "predictions.json").read_text())
    assert len(results) > 2
    assert min(each["score"] for each in results) > 0.4385
    script = [sys.executable, str(ROOT / detected[1]), *detected[2:]]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [float(score) for _, score, *_ in lines] == pytest.approx([each["score"] for each in results], abs=2e-3)
    boxes = np.array([[float(side) for side in box] for _, _, *box in lines])
    boxes[:, 2:] -= boxes[:, :2]
    np.testing.assert_allclose(boxes, [each["bbox"] for each in results], atol=0.2)


@pytest.mark.slow
def test_from_a_float_run_to_integers_without_torch(tmp_path: Path) -> None:
    """Each step as a user takes it: fit, fit with rounding errors, export, detect."""

    def fit(name: str, weights: Path, *more: str) -> Path:
        """Train for an epoch of 8 steps and return the checkpoint."""
        where = [f"--trainer.default_root_dir={tmp_path / name}", "--trainer.accelerator=cpu"]
        length = [
            "--trainer.max_epochs=1",
            "--data.train.init_args.num_images=128",
            "--data.val.init_args.num_images=32",
        ]
        config = ["--config", str(CHECKPOINT.with_suffix(".yaml")), "--model.weights", str(weights)]
        rate = ["--model.optimizer.init_args.lr=1e-4", "--trainer.enable_progress_bar=false"]
        assert main(["fit", *config, *rate, *length, *where, *more]) == 0
        (best,) = (tmp_path / name).rglob("best.ckpt")
        return best

    floating = fit("float", CHECKPOINT)
    aware = fit("aware", floating, "--trainer.callbacks+=detlit.QuantizationAwareTraining")
    options = ["--nms", "batch", "--score_threshold", "0.5"]
    assert main(["export", "--ckpt_path", str(aware), "--output", str(tmp_path / "int8.onnx"), *options]) == 0
    assert main(["export", "--ckpt_path", str(floating), "--output", str(tmp_path / "float.onnx"), *options]) == 0

    detector = detector_from_checkpoint(read_checkpoint(aware))
    images = pictures(32)
    found = found_without_torch(tmp_path / "int8.onnx", images)
    assert_agreement(found_by_torch(detector, images, 0.5), found)
    assert found != found_without_torch(tmp_path / "float.onnx", images)
    operators = count_operators(tmp_path / "int8.onnx")
    assert operators["QLinearConv"] >= 0.9 * (operators["QLinearConv"] + operators.get("FusedConv", 0))
    sizes = [(tmp_path / name).stat().st_size for name in ("int8.onnx", "float.onnx")]
    assert sizes[0] <= 0.30 * sizes[1]
