"""Weights of SuperGradients become checkpoints that need nothing else."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from detlit import DetectionModule, Predictor, Preprocessing, ppyoloe_s
from detlit.cli import main
from detlit.data.transforms.letterbox import letterbox
from detlit.models.torch_files import read_torch_file
from detlit.spec import as_config, spec_of
from tests.cli.test_entry_point import loaded_after
from tests.golden_checkpoint import CHECKPOINT, FORWARD, golden_detector
from tests.golden_recipe import image_batch, image_u8


@pytest.fixture
def detector_config(tmp_path: Path) -> Path:
    """Return a YAML file of the detector in the golden checkpoint."""
    config = as_config(spec_of(golden_detector(num_classes=80)))
    del config["init_args"]["preprocessing"]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def converted(tmp_path: Path, detector_config: Path) -> Path:
    path = tmp_path / "out" / "new.ckpt"
    assert main(["convert", str(CHECKPOINT), str(path), "--model", str(detector_config)]) == 0
    return path


def test_it_says_what_it_did(tmp_path: Path, detector_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converted = tmp_path / "new.ckpt"
    assert main(["convert", str(CHECKPOINT), str(converted), "--model", str(detector_config)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{CHECKPOINT} (SuperGradients, ema_net): loaded 551 of 551 tensors",
        f"written to {converted}: {detector_config}, 3 classes (cat, dog, bird)",
    ]


def test_the_module_computes_what_super_gradients_does(converted: Path) -> None:
    module = DetectionModule.load_from_checkpoint(converted).eval()
    assert module.class_names == ("cat", "dog", "bird")
    assert module.preprocessing == Preprocessing(size=(64, 64), content_size=(60, 60))
    assert module.post_prediction_callback.nms_threshold == 0.65
    assert module.post_prediction_callback.score_threshold == 0.01
    with torch.no_grad():
        predictions = module.detector(torch.from_numpy(image_batch("ckpt", 1, 64, 64)))
    with np.load(FORWARD) as golden:
        scores = torch.from_numpy(golden["ema_net_scores"])
    torch.testing.assert_close(predictions.cls_logits.sigmoid(), scores, rtol=0, atol=1e-5)


def test_predict_needs_nothing_else(converted: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), image_u8(50, 80))
    arguments = ["--ckpt_path", str(converted), "--source", str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]
    assert main(["predict", *arguments, "--device", "cpu", "--score_threshold", "0.001"]) == 0
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {record["category_name"] for record in records} <= {"cat", "dog", "bird"}
    assert records


def test_boxes_are_those_of_the_network_on_the_stored_preprocessing(converted: Path) -> None:
    image = image_u8(50, 80)
    (result,) = Predictor(converted, score_threshold=0.0, device="cpu")([image])
    module = DetectionModule.load_from_checkpoint(converted).eval()
    module.post_prediction_callback.score_threshold = 0.0
    canvas = torch.from_numpy(letterbox(image, module.preprocessing)).permute(2, 0, 1)[None]
    with torch.no_grad():
        (expected,) = module(canvas)
    scale_x, scale_y, left, top = module.preprocessing.geometry(50, 80)
    boxes = (expected["boxes"].numpy() - [left, top, left, top]) / [scale_x, scale_y, scale_x, scale_y]
    np.testing.assert_allclose(result.scores, expected["scores"].numpy(), atol=1e-5)
    np.testing.assert_allclose(result.boxes, boxes.clip(0, [80, 50, 80, 50]), atol=1e-2)


def test_the_score_threshold_is_that_of_the_source(converted: Path) -> None:
    assert Predictor(converted, device="cpu").engine.thresholds.least == 0.5
    assert Predictor(converted, score_threshold=0.1, device="cpu").engine.thresholds.least == 0.1


def test_the_score_threshold_outlives_another_save(converted: Path) -> None:
    module = DetectionModule.load_from_checkpoint(converted)
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["detlit"]["score_threshold"] == 0.5


def test_checkpoint_is_plain_data(converted: Path) -> None:
    stored = torch.load(converted, weights_only=True)
    assert set(stored) == {"state_dict", "detlit", "epoch", "global_step", "pytorch-lightning_version"}
    assert stored["detlit"]["data"] is None


def test_names_and_preprocessing_can_be_given(tmp_path: Path, detector_config: Path) -> None:
    path = tmp_path / "new.ckpt"
    arguments = ["convert", str(CHECKPOINT), str(path), "--model", str(detector_config)]
    options = ["--class_names", '["x", "y", "z"]', "--preprocessing", '{"size": [96, 64], "keep_ratio": false}']
    assert main([*arguments, *options]) == 0
    module = DetectionModule.load_from_checkpoint(path)
    assert module.class_names == ("x", "y", "z")
    assert module.preprocessing == Preprocessing(size=(96, 64), keep_ratio=False)


def test_a_preset_is_recognized_by_its_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(ppyoloe_s(num_classes=2).state_dict(), tmp_path / "bare.pth")
    options = ["--preprocessing.size", "[320, 320]"]
    assert main(["convert", str(tmp_path / "bare.pth"), str(tmp_path / "new.ckpt"), *options]) == 0
    assert capsys.readouterr().out.endswith("new.ckpt: ppyoloe_s, 2 classes (class_0, class_1)\n")
    assert read_torch_file(tmp_path / "new.ckpt")["detlit"]["preprocessing"]["size"] == [320, 320]


def test_notes_tell_what_was_inferred(
    tmp_path: Path, detector_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = read_torch_file(CHECKPOINT)
    torch.save({"net": stored["net"]}, tmp_path / "average_model.pth")
    arguments = ["convert", str(tmp_path / "average_model.pth"), str(tmp_path / "new.ckpt")]
    assert main([*arguments, "--model", str(detector_config)]) == 0
    out = capsys.readouterr().out
    assert "  it names no classes.\n" in out
    assert "  it does not say how images become input: as for published YOLO-NAS.\n" in out
    assert "3 classes (class_0, class_1, class_2)" in out


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 1, "has not the shapes of any preset: name its detector with --model"),
        (["--model", "yolo_nas_s"], 1, "does not fit the detector"),
        (["--model", "yolo_nas_x"], 2, "did you mean"),
        (["--model", "TINY", "--class_names", '["a"]'], 2, "1 class names for weights of 3 classes"),
    ],
)
def test_errors_are_one_line(
    options: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    detector_config: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [str(detector_config) if option == "TINY" else option for option in options]
    assert main(["convert", str(CHECKPOINT), str(tmp_path / "new.ckpt"), *options]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new.ckpt").exists()


def test_nothing_is_overwritten(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(CHECKPOINT), str(converted)]) == 2
    assert "new.ckpt already: choose another name" in capsys.readouterr().err


def test_weights_without_input_settings_need_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(ppyoloe_s(num_classes=2).state_dict(), tmp_path / "bare.pth")
    assert main(["convert", str(tmp_path / "bare.pth"), str(tmp_path / "new.ckpt")]) == 1
    assert "say it with --preprocessing.size" in capsys.readouterr().err


def test_weights_without_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"backbone.weight": torch.zeros(1)}, tmp_path / "bare.pth")
    arguments = ["convert", str(tmp_path / "bare.pth"), str(tmp_path / "new.ckpt"), "--model", "yolo_nas_s"]
    assert main(arguments) == 1
    assert "has no layers for classes" in capsys.readouterr().err


def test_convert_does_not_import_lightning() -> None:
    assert not loaded_after("import detlit.cli.convert") & {"lightning", "lightning_fabric", "albumentations"}
