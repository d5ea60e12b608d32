"""Which format a folder holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from detlit.data import guess_datasets
from detlit.errors import AnnotationError, DatasetError
from tests.data.datasets import test_voc, test_yolo

LINE = "1 .5 .5 .5 .2"


def coco(root: Path, json_file: str, image: str, **changes: Any) -> None:
    """Write an image and a COCO file that names it without its folder."""
    test_yolo.put(root, {image: None})
    content: dict[str, Any] = {
        "info": {},
        "images": [{"id": 1, "file_name": Path(image).name}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 12, 20, 6]}],
        "categories": [{"id": 3, "name": "dog"}],
    }
    path = root / json_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **changes}))


def found(root: Path) -> dict[str, tuple[str, list[list[float]], list[str]]]:
    return {
        split: (type(data).__name__, data[0][1]["boxes"].tolist(), list(data.class_names))
        for split, data in guess_datasets(root).items()
    }


BOX = [[10, 12, 30, 18]]


@pytest.mark.parametrize(
    "files",
    [
        {"train": ("annotations/instances_train.json", "images/train/a.png"),
         "val": ("annotations/instances_val.json", "images/val/a.png")},
        {"train": ("annotations/instances_train2017.json", "train2017/a.png"),
         "val": ("annotations/instances_val2017.json", "val2017/b.png")},
        {"train": ("train/_annotations.coco.json", "train/a.png"),
         "val": ("valid/_annotations.coco.json", "valid/a.png"),
         "test": ("test/_annotations.coco.json", "test/a.png")},
        {"train": ("labels.json", "data/a.png")},
        {"train": ("result.json", "a.png")},
    ],
    ids=["images/", "coco2017", "roboflow", "fiftyone", "flat"],
)  # fmt: skip
def test_coco_json(tmp_path: Path, files: dict[str, tuple[str, str]]) -> None:
    for names in files.values():
        coco(tmp_path, *names)
    (tmp_path / "package.json").write_text('{"name": "images"}')
    assert found(tmp_path) == {split: ("CocoDataset", BOX, ["dog"]) for split in files}


def test_instances_are_preferred_to_keypoints(tmp_path: Path) -> None:
    coco(
        tmp_path, "annotations/aaa_keypoints_train.json", "images/train/a.png", categories=[{"id": 3, "name": "person"}]
    )
    coco(tmp_path, "annotations/instances_train.json", "images/train/a.png")
    assert found(tmp_path) == {"train": ("CocoDataset", BOX, ["dog"])}


@pytest.mark.parametrize(
    ("images", "yaml", "splits"),
    [
        (
            ["images/train/a.png", "images/val/a.png"],
            "train: images/train\nval: images/val\nnames: [cat, dog]",
            "train val",
        ),
        (["train/images/a.png"], "train: ../train/images\nval: ../valid/images\nnames: [cat, dog]", "train"),
        (["images/train/a.png", "images/test/a.png"], None, "train test"),
        (["train/images/a.png", "valid/images/a.png"], None, "train val"),
        (["images/a.png"], None, "train"),
    ],
    ids=["ultralytics", "roboflow without val", "twins", "twins in splits", "no splits"],
)
def test_yolo_layouts(tmp_path: Path, images: list[str], yaml: str | None, splits: str) -> None:
    test_yolo.put(tmp_path, dict.fromkeys(images, LINE), yaml)
    names = ["0", "1"] if yaml is None else ["cat", "dog"]
    assert found(tmp_path) == dict.fromkeys(splits.split(), ("YoloDataset", BOX, names))
    if yaml is None:
        (tmp_path / "classes.txt").write_text("cat\ndog\nowl\n")
        assert next(iter(found(tmp_path).values()))[2] == ["cat", "dog", "owl"]


def test_other_yaml_files_are_passed_over_but_a_broken_data_yaml_is_told(tmp_path: Path) -> None:
    test_yolo.put(tmp_path, {"images/train/a.png": LINE})
    (tmp_path / "mkdocs.yml").write_text("nav: [a]")
    (tmp_path / "cells.yaml").write_text("train: images/train\nnames: [cat, dog]")
    assert found(tmp_path) == {"train": ("YoloDataset", BOX, ["cat", "dog"])}
    (tmp_path / "data.yaml").write_text("train: images/train")
    with pytest.raises(AnnotationError, match=r"data\.yaml has no class names"):
        guess_datasets(tmp_path)


def test_voc_folders(tmp_path: Path) -> None:
    test_voc.put(tmp_path, {"a.png": test_voc.xml(test_voc.CAT)})
    expected = ("VocDataset", [test_voc.BOX], ["cat"])
    assert found(tmp_path) == {"train": expected}
    (tmp_path / "JPEGImages").rename(tmp_path / "images")
    assert found(tmp_path) == {"train": expected}
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("a\n")
    (tmp_path / "ImageSets/Main/test.txt").write_text("a\n")
    assert found(tmp_path) == {"val": expected, "test": expected}


@pytest.mark.parametrize(("folder", "split"), [("train", "train"), ("valid", "val"), (".", "train")])
def test_voc_beside_the_images(tmp_path: Path, folder: str, split: str) -> None:
    test_voc.put(tmp_path, {"a.png": test_voc.xml(test_voc.CAT)}, (folder, folder))
    assert found(tmp_path) == {split: ("VocDataset", [test_voc.BOX], ["cat"])}


def test_nothing_that_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(
        DatasetError, match=r"holds no data set that is recognised \(COCO: a json .*in a config instead"
    ):
        guess_datasets(tmp_path)
    with pytest.raises(DatasetError, match=r"there is no folder .*nowhere: check"):
        guess_datasets(tmp_path / "nowhere")
