"""The forms of a result."""

import csv
import json
import sys
import types
import webbrowser
from pathlib import Path

import cv2
import numpy as np
import pytest

from detlit.errors import ConfigurationError, MissingExtraError
from detlit.prediction import Result
from detlit.prediction.files import ResultFiles
from detlit.prediction.video import count_frames

NAMES = ("cat", "dog")


def result(path: str | None = "a/7.png", frame: int | None = None, fps: float | None = None) -> Result:
    return Result(
        boxes=np.array([[10, 20, 30.5, 60], [0, 0, 100, 80]], dtype=np.float32),
        scores=np.array([0.9, 0.5], dtype=np.float32),
        labels=np.array([1, 0]),
        class_names=NAMES,
        image=np.full((80, 100, 3), 50, dtype=np.uint8),
        path=None if path is None else Path(path),
        frame=frame,
        fps=fps,
    )


def test_words_and_size() -> None:
    found = result()
    assert (len(found), str(found), found.names, found.orig_size) == (2, "1 dog, 1 cat", ["dog", "cat"], (80, 100))


def test_coco() -> None:
    first, second = result().to_coco(image_id=7)
    assert first == {
        "image_id": 7,
        "file_name": "7.png",
        "category_id": 2,
        "category_name": "dog",
        "bbox": [10.0, 20.0, 20.5, 40.0],
        "score": 0.9,
    }
    assert second["category_id"] == 1


def test_yolo() -> None:
    assert result().to_yolo().splitlines() == [
        "1 0.202500 0.500000 0.205000 0.500000 0.900000",
        "0 0.500000 0.500000 1.000000 1.000000 0.500000",
    ]


def test_json() -> None:
    data = json.loads(result().to_json())
    assert data["path"] == "a/7.png"
    assert data["orig_size"] == [80, 100]
    assert data["detections"][0] == {"box": [10.0, 20.0, 30.5, 60.0], "score": 0.9, "label": 1, "name": "dog"}


def test_crops_hold_every_pixel_of_a_box() -> None:
    found = result()
    found.image[20:60, 10:31] = 200
    first, second = found.crop()
    assert first.shape == (40, 21, 3)
    assert (first == 200).all()
    assert second.shape == found.image.shape


def test_a_crop_of_a_box_without_area_is_a_pixel() -> None:
    found = result()
    found.boxes[0] = (100, 80, 100, 80)
    assert found.crop()[0].shape == (1, 1, 3)


def test_supervision() -> None:
    pytest.importorskip("supervision")
    detections = result().to_supervision()
    np.testing.assert_array_equal(detections.xyxy, result().boxes)
    assert detections.data["class_name"].tolist() == ["dog", "cat"]
    assert len(detections[detections.confidence > 0.6]) == 1


def test_supervision_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'detlit\[supervision\]'"):
        result().to_supervision()


def test_save_takes_a_file_or_a_folder(tmp_path: Path) -> None:
    assert result().save(tmp_path) == tmp_path / "7.png"
    assert result(path=None).save(tmp_path) == tmp_path / "image.png"
    assert result("film.mp4", frame=3).save(tmp_path) == tmp_path / "film_000003.png"
    assert result().save(tmp_path / "other.jpg").is_file()
    written = cv2.cvtColor(cv2.imread(str(tmp_path / "7.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(written, result().draw())


def test_show_opens_the_viewer_or_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    result().show()
    shown = Path(opened[0].removeprefix("file://"))
    assert cv2.imread(str(shown)).shape == (80, 100, 3)
    shown.unlink()
    displayed: list[Result] = []
    notebook = types.SimpleNamespace(get_ipython=lambda: 1, display=types.SimpleNamespace(display=displayed.append))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    result().show()
    assert len(opened) == len(displayed) == 1
    assert displayed[0]._repr_png_().startswith(b"\x89PNG")


def test_files_of_all_formats(tmp_path: Path) -> None:
    with ResultFiles(tmp_path / "out", ("media", "json", "yolo", "csv")) as files:
        for each in (result(), result("b/7.png"), result("film.mov", 0, 12.5), result("film.mov", 1, 12.5)):
            files.write(each)
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    labels = {f"labels/{name}.txt" for name in ("7", "7_2", "film_000000", "film_000001")}
    assert names == {"7.png", "7_2.png", "film.mp4", "predictions.json", "predictions.csv"} | labels
    assert cv2.VideoCapture(str(tmp_path / "out" / "film.mp4")).get(cv2.CAP_PROP_FPS) == 12.5
    assert count_frames(tmp_path / "out" / "film.mp4") == 2
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(record["image_id"], record.get("frame")) for record in records[::2]] == [
        (1, None),
        (2, None),
        (3, 0),
        (4, 1),
    ]
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert rows[0] == {
        "path": "a/7.png",
        "frame": "",
        "left": "10.0",
        "top": "20.0",
        "right": "30.5",
        "bottom": "60.0",
        "score": "0.9",
        "label": "1",
        "name": "dog",
    }


def test_only_what_is_asked_for_is_written(tmp_path: Path) -> None:
    with ResultFiles(tmp_path / "out", ("csv",)) as files:
        files.write(result())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]
    with pytest.raises(ConfigurationError, match="format xml: choose among media, json, yolo, csv"):
        ResultFiles(tmp_path, ("xml",))


def test_what_was_found_before_an_error_is_kept(tmp_path: Path) -> None:
    def write_and_stop() -> None:
        with ResultFiles(tmp_path, ("json",)) as files:
            files.write(result())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 2
