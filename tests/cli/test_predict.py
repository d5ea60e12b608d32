"""``detlit predict`` on videos, patterns and broken files; tests/test_predictor.py has the rest."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detlit.cli import main
from tests.prediction.media import shapes_images, write_video
from tests.shapes_detector import CHECKPOINT


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Return a folder with two images, one of them in a subfolder, and a video."""
    for name, image in zip(("a.png", "sub/a.png"), shapes_images(3)[1:], strict=True):
        path = tmp_path / "media" / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
    write_video(tmp_path / "media" / "film.avi", 4, fps=12.5)
    return tmp_path / "media"


def run(source: Path | str, *options: str) -> int:
    output = Path(str(source).partition("media")[0]) / "out"
    arguments = ["--ckpt_path", str(CHECKPOINT), "--source", str(source), "--output", str(output), "--device", "cpu"]
    return main(["predict", *arguments, *options])


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_images_and_videos_of_a_folder(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(media, "--recursive", "--save", "media,json,yolo,csv") == 0
    frames = {f"labels/film_{number:06d}.txt" for number in range(4)}
    assert written(tmp_path / "out") == frames | {
        "a.png",
        "a_2.png",
        "film.avi",
        "labels/a.txt",
        "labels/a_2.txt",
        "predictions.csv",
        "predictions.json",
    }
    out = capsys.readouterr().out
    assert f"{media / 'film.avi'}: 4 frames, " in out
    assert "2 images, 4 video frames, " in out
    video = cv2.VideoCapture(str(tmp_path / "out" / "film.avi"))
    assert (video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)) == (12.5, 4)


def test_one_is_not_counted_as_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "media").mkdir()
    cv2.imwrite(str(tmp_path / "media/grey.png"), np.full((96, 96, 3), 90, dtype=np.uint8))
    assert run(tmp_path / "media") == 0
    assert f"\n1 image, 0 detections, written to {tmp_path / 'out'}\n" in capsys.readouterr().out


def test_only_some_classes_above_thresholds_of_their_own(media: Path, tmp_path: Path) -> None:
    assert (
        run(f"{media}/**/*.png", "--score_threshold", '{"star": 0.1, "ring": 0.99}', "--classes", "[star, ring]") == 0
    )
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {record["category_name"] for record in records} <= {"star", "ring"}
    assert all(record["score"] > {"star": 0.1, "ring": 0.99}[record["category_name"]] for record in records)
    assert records


def test_large_images_in_tiles(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    scenes = shapes_images(12)
    image = np.vstack([np.hstack(scenes[row : row + 4]) for row in (0, 4, 8)])
    cv2.imwrite(str(tmp_path / "media" / "large.png"), image[..., ::-1])
    counts = []
    for options in ([], ["--tiles", "128", "--overlap", "0.25"]):
        assert run(tmp_path / "media", *options) == 0
        counts.append(len(json.loads((tmp_path / "out" / "predictions.json").read_text())))
    assert counts[1] > counts[0]


@pytest.mark.parametrize(("broken", "images"), [("skip", {"a.png"}), ("fail", set())])
def test_broken_images_are_skipped_or_fatal(
    media: Path, tmp_path: Path, broken: str, images: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (media / "Broken.png").write_bytes(b"broken")
    assert run(f"{media}/*.png", "--broken", broken) == 1
    assert written(tmp_path / "out") == {"predictions.json", *images}
    assert "Broken.png cannot be decoded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--broken", "maybe"], "--broken maybe is unknown: choose skip or fail"),
        (["--save", "xml"], "format xml: choose among media, json, yolo, csv"),
        (["--classes", "[unicorn]"], "class unicorn is unknown: choose among"),
        (["--precision", "float16"], "choose float32, bfloat16, or float16 on a GPU"),
    ],
)
def test_mistakes_are_one_sentence(
    media: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(media, *options) == 2
    assert message in capsys.readouterr().err
