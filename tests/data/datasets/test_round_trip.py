"""A random data set, written in every format and read back."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detlit.data import CocoDataset, DetectionDataset, HuggingFaceDataset, ListDataset, VocDataset, YoloDataset

NAMES = ["ant", "bee", "cow"]


class Picture(NamedTuple):
    """One image with its objects; boxes are xyxy pixels."""

    name: str
    pixels: NDArray[np.uint8]
    boxes: list[list[int]]
    labels: list[int]


@st.composite
def pictures(draw: st.DrawFn) -> list[Picture]:
    """Draw up to four images, some of them empty, and boxes that touch edges, reach over them, or have no area."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        corners = [st.integers(-5, width + 5), st.integers(-5, height + 5)]
        boxes = [
            [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
            for x1, y1, x2, y2 in draw(st.lists(st.tuples(*corners, *corners), max_size=4))
        ]
        labels = draw(st.lists(st.integers(0, 2), min_size=len(boxes), max_size=len(boxes)))
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        found.append(Picture(f"{number}.png", pixels, boxes, labels))
    return found


def coco(root: Path, given: list[Picture]) -> DetectionDataset:
    annotations = [
        {"image_id": i, "category_id": 7 * label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for i, picture in enumerate(given)
        for (x1, y1, x2, y2), label in zip(picture.boxes, picture.labels, strict=True)
    ]
    content = {
        "images": [{"id": i, "file_name": picture.name} for i, picture in enumerate(given)],
        "annotations": annotations,
        "categories": [{"id": 7 * label, "name": name} for label, name in enumerate(NAMES)],
    }
    (root / "a.json").write_text(json.dumps(content))
    return CocoDataset("a.json", "images", root=str(root))


def yolo(root: Path, given: list[Picture]) -> DetectionDataset:
    (root / "labels").mkdir()
    for name, pixels, boxes, labels in given:
        height, width = pixels.shape[:2]
        lines = [
            f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"
            for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True)
        ]
        (root / "labels" / name).with_suffix(".txt").write_text("".join(lines))
    return YoloDataset(images="images", root=str(root), class_names=NAMES)


def polygons(root: Path, given: list[Picture]) -> DetectionDataset:
    yolo(root, given)
    for name, pixels, boxes, labels in given:
        height, width = pixels.shape[:2]
        lines = [
            f"{label} {x1 / width!r} {y1 / height!r} {x2 / width!r} {y1 / height!r} {x2 / width!r} {y2 / height!r}\n"
            for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True)
        ]
        (root / "labels" / name).with_suffix(".txt").write_text("".join(lines))
    return YoloDataset(images="images", root=str(root), class_names=NAMES)


def voc(root: Path, given: list[Picture]) -> DetectionDataset:
    (root / "xml").mkdir()
    for name, pixels, boxes, labels in given:
        objects = [
            f"<object><name>{NAMES[label]}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object>"
            for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True)
        ]
        size = f"<size><width>{pixels.shape[1]}</width><height>{pixels.shape[0]}</height></size>"
        (root / "xml" / name).with_suffix(".xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    return VocDataset("xml", "images", root=str(root), class_names=NAMES)


def as_list(root: Path, given: list[Picture]) -> DetectionDataset:
    return ListDataset([(f"images/{picture.name}", *picture[2:]) for picture in given], NAMES, root=str(root))


def huggingface(root: Path, given: list[Picture]) -> DetectionDataset:
    datasets = pytest.importorskip("datasets")
    columns: Any = {
        "image": [(root / "images" / picture.name).read_bytes() for picture in given],
        "box": [picture.boxes for picture in given],
        "label": [picture.labels for picture in given],
    }
    box = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
    features = datasets.Features(
        image=datasets.Value("binary"), box=box, label=datasets.Sequence(datasets.ClassLabel(names=NAMES))
    )
    made = datasets.Dataset.from_dict(columns, features=features)
    return HuggingFaceDataset(made, boxes="box", labels="label", box_format="xyxy")


@pytest.mark.filterwarnings("ignore:.*(without area|that repeat)")
@pytest.mark.parametrize("write", [coco, yolo, polygons, voc, as_list, huggingface])
@given(given=pictures())
def test_what_is_written_is_read(
    write: Callable[[Path, list[Picture]], DetectionDataset], given: list[Picture]
) -> None:
    if write in (yolo, polygons):  # beyond twice the image's size they would be taken for pixels
        given = [picture for picture in given if min(picture.pixels.shape[:2]) > 5]
    if not given:
        return
    with TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        for picture in given:
            cv2.imwrite(str(root / "images" / picture.name), picture.pixels[..., ::-1])
        data = write(root, given)
        assert (len(data), list(data.class_names)) == (len(given), NAMES)
        for index, picture in enumerate(given):
            truth, target = data.load_target(index), data[index][1]
            np.testing.assert_allclose(np.asarray(truth["boxes"]), np.reshape(picture.boxes, (-1, 4)), atol=1e-9)
            np.testing.assert_array_equal(truth["labels"], picture.labels)
            np.testing.assert_array_equal(data.load_image(index), picture.pixels)
            assert data.image_size(index) == picture.pixels.shape[:2] == target["orig_size"]
            assert (target["image_id"], target["dataset_index"]) == (index, index)
