"""Detections from a checkpoint file alone."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detlit import DetectionModule, Predictor, Preprocessing
from detlit.cli import main
from detlit.cli.predict import predict
from detlit.errors import CheckpointError, ConfigurationError, DatasetError, ImageReadError
from detlit.models.checkpoint_entry import make_entry
from detlit.prediction.engines import TorchEngine
from detlit.prediction.sources import expand
from detlit.spec import init_spec_of
from tests.tiny import tiny_detector

NAMES = ["red", "white", "platelet"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a checkpoint of an untrained detector, as Lightning would lay it out."""
    torch.manual_seed(0)
    preprocessing = Preprocessing(size=(64, 96))
    module = DetectionModule(tiny_detector(), class_names=NAMES, preprocessing=preprocessing)
    entry = make_entry(init_spec_of(module), None, preprocessing, NAMES)
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": module.state_dict(), "detlit": entry}, path)
    return path


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_pictures(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), picture(50 + 10 * number, 80, number))
    return folder


def test_results_are_in_pixels_of_each_image(checkpoint: Path) -> None:
    images = [picture(50, 80), picture(300, 120), picture(33, 999)]
    results = list(Predictor(checkpoint, score_threshold=0.0, device="cpu")(images, batch_size=2))
    assert [result.image.shape for result in results] == [image.shape for image in images]
    for result in results:
        height, width = result.image.shape[:2]
        assert len(result.boxes) == len(result.scores) == len(result.labels) > 0
        assert (result.boxes >= 0).all()
        assert (result.boxes <= [width, height, width, height]).all()
        assert (np.diff(result.scores) <= 0).all()
        assert result.class_names == tuple(NAMES)


def test_batching_does_not_change_results(checkpoint: Path) -> None:
    images = [picture(50 + 7 * number, 80, number) for number in range(5)]
    predictor = Predictor(checkpoint, score_threshold=0.0, device="cpu")
    for together, alone in zip(predictor(images, batch_size=4), predictor(images, batch_size=1), strict=True):
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-2)
        np.testing.assert_array_equal(together.labels, alone.labels)


def test_the_threshold_is_a_choice_and_zero_is_one(checkpoint: Path) -> None:
    (some,) = Predictor(checkpoint, score_threshold=0.0, device="cpu")([picture(64, 64)])
    (none,) = Predictor(checkpoint, score_threshold=0.9, device="cpu")([picture(64, 64)])
    assert len(some.boxes) > len(none.boxes) == 0


def test_an_endless_iterator_is_consumed_as_needed(checkpoint: Path) -> None:
    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield picture(64, 64)

    results = Predictor(checkpoint, device="cpu")(endless(), batch_size=2)
    assert next(results).image.shape == (64, 64, 3)


def test_a_single_image_needs_no_list(checkpoint: Path, tmp_path: Path) -> None:
    predictor = Predictor(checkpoint, device="cpu")
    path = write_pictures(tmp_path / "pictures", ["a.png"]) / "a.png"
    for image in (picture(50, 80), path, str(path)):
        (result,) = predictor(image)
        assert result.image.shape == (50, 80, 3)
        assert result.path == (None if isinstance(image, np.ndarray) else path)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (picture(9, 8) * np.float32(2), "float32 values from 0.0 to"),
        (picture(9, 8)[:0], r"is an array \(0, 8, 3\)"),
        (np.zeros((9, 8, 2), np.uint8), r"is an array \(9, 8, 2\)"),
        (torch.zeros(5, 9, 8), r"is an array \(9, 8, 5\)"),
    ],
    ids=["float beyond 1", "empty", "two channels", "five channels"],
)
def test_what_is_no_image_is_refused(checkpoint: Path, image: Any, what: str) -> None:
    with pytest.raises(ImageReadError, match=what):
        list(Predictor(checkpoint, device="cpu")([image]))


@pytest.mark.parametrize("source", [None, 3.5, object()])
def test_what_is_no_source_is_refused(checkpoint: Path, source: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"a source is a {type(source).__name__}: give a path"):
        list(Predictor(checkpoint, device="cpu")(source))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_wrong_batch_size_is_refused_at_the_call(checkpoint: Path, batch_size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"batch_size={batch_size} leaves no image"):
        Predictor(checkpoint, device="cpu")([], batch_size=batch_size)


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta"])
def test_a_device_that_cannot_be_used_is_named(checkpoint: Path, device: str) -> None:
    with pytest.raises(ConfigurationError, match=f"device '{device}' cannot be used here .*: choose another, e.g. cpu"):
        Predictor(checkpoint, device=device)


def test_files_and_folders_are_found_in_order(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", ["b.png", "a.jpg", "c.JPG"])
    (folder / "notes.txt").write_text("no picture")
    (folder / "sub.png").mkdir()
    assert [path.name for path in expand(folder)] == ["a.jpg", "b.png", "c.JPG"]
    with pytest.raises(DatasetError, match="there is no file or folder"):
        expand(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image or video in folder"):
        expand(tmp_path / "empty")


def test_a_missing_image_is_named(checkpoint: Path) -> None:
    with pytest.raises(ImageReadError, match=r"gone\.jpg"):
        list(Predictor(checkpoint, device="cpu")(["gone.jpg"]))


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "text"])
def test_a_bad_checkpoint_is_one_sentence(damage: str, checkpoint: Path) -> None:
    if damage == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    elif damage == "empty":
        checkpoint.write_bytes(b"")
    elif damage == "text":
        checkpoint.write_text("hello")
    else:
        torch.save({"model": torch.zeros(1)}, checkpoint)
    with pytest.raises(CheckpointError, match=r"model\.ckpt"):
        Predictor(checkpoint)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"state_dict": Malicious()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="could run code"):
        Predictor(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_the_command_writes_pictures_and_coco_results(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pictures(tmp_path / "pictures", ["000000000139.jpg", "b.png"])
    output = tmp_path / "out"
    arguments = ["--ckpt_path", str(checkpoint), "--source", str(folder), "--output", str(output)]
    assert main(["predict", *arguments, "--score_threshold", "0.0", "--device", "cpu"]) == 0
    assert (output / "000000000139.jpg").is_file()
    assert cv2.imread(str(output / "b.png")).shape == (60, 80, 3)
    records = json.loads((output / "predictions.json").read_text())
    assert {record["image_id"] for record in records} == {1, 2}
    assert all(NAMES[record["category_id"] - 1] == record["category_name"] for record in records)
    assert all(len(record["bbox"]) == 4 and min(record["bbox"]) >= 0 for record in records)
    assert f"2 images, {len(records)} detections" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "image_ids"),
    [
        (["000000000139.png", "000000000285.png"], {139, 285}),
        (["2.png", "a.png"], {1, 2}),
        (["007.png", "7.png"], {1, 2}),
        (["5.jpg", "5.png"], {1, 2}),
    ],
)
def test_image_ids_are_the_names_if_these_are_distinct_numbers(
    checkpoint: Path, tmp_path: Path, names: list[str], image_ids: set[int]
) -> None:
    folder = write_pictures(tmp_path / "pictures", names)
    predict(str(checkpoint), str(folder), str(tmp_path / "out"), score_threshold=0.0, device="cpu")
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {record["image_id"] for record in records} == image_ids


@pytest.mark.parametrize("source", ["pictures", "pictures/a.png", "linked"])
def test_source_images_are_never_overwritten(checkpoint: Path, tmp_path: Path, source: str) -> None:
    folder = write_pictures(tmp_path / "pictures", ["a.png"])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.png").symlink_to(folder / "a.png")
    before = (folder / "a.png").read_bytes()
    with pytest.raises(ConfigurationError, match="would overwrite the source images there: choose another --output"):
        predict(str(checkpoint), str(tmp_path / source), str(tmp_path / "linked" / ".." / "pictures"), device="cpu")
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    assert (folder / "a.png").read_bytes() == before


@pytest.mark.parametrize("name", ["photo", "photo.download"])
def test_an_image_without_a_suffix_to_write_becomes_a_png(checkpoint: Path, tmp_path: Path, name: str) -> None:
    write_pictures(tmp_path / "pictures", ["a.png"]).joinpath("a.png").rename(tmp_path / name)
    predict(str(checkpoint), str(tmp_path / name), str(tmp_path / "out"), device="cpu")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.png", "predictions.json"}


def test_one_bad_image_does_not_lose_the_others(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pictures(tmp_path / "pictures", ["a.png", "c.png"])
    (folder / "b.png").write_bytes(b"broken")
    output = tmp_path / "out"
    arguments = ["--ckpt_path", str(checkpoint), "--source", str(folder), "--output", str(output)]
    assert main(["predict", *arguments, "--device", "cpu"]) == 1
    assert {path.name for path in output.iterdir()} == {"a.png", "c.png", "predictions.json"}
    error = capsys.readouterr().err
    assert "b.png cannot be decoded" in error
    assert "1 of 3 images could not be read" in error


def test_predict_has_friendly_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["predict", "--ckpt_path", "x", "--sorce", "y"])
    assert leaving.value.code == 2
    assert "did you mean: --source?" in capsys.readouterr().err


def test_the_detector_is_fused(checkpoint: Path) -> None:
    engine = Predictor(checkpoint, device="cpu").engine
    assert isinstance(engine, TorchEngine)
    assert engine.detector.fused == "full"
