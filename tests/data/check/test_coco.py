"""COCO files that cannot be read as they are: every fault has its place, and the rest is read."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from detlit.data.check import check_data
from detlit.data.check.coco import collect_coco
from detlit.errors import DatasetError
from tests.data.check.scenes import Scene, found


def faults(scene: Scene) -> dict[str, list[str]]:
    return found(scene.check(read_images=False))


@pytest.mark.parametrize(
    ("change", "code", "place"),
    [
        ({"image_id": 99}, "unlisted-image", "annotation 5 (train): image_id 99"),
        (
            {"image_id": "2"},
            "malformed-record",
            "annotation 5 (train): annotation 5 has image_id '2': write an integer",
        ),
        ({"category_id": 9}, "undeclared-class", "annotation 5 (train): category_id 9"),
        ({"category_id": None}, "malformed-record", "annotation 5 (train): annotation 5 has no 'category_id'"),
        ({"bbox": None}, "malformed-record", "annotation 5 (train): annotation 5 has no 'bbox'"),
        ({"bbox": [1, 2, 3]}, "malformed-record", "annotation 5 (train): annotation 5 has bbox [1, 2, 3]"),
        ({"iscrowd": 2}, "malformed-record", "annotation 5 (train): annotation 5 has iscrowd 2"),
        ({"id": 6}, "repeated-id", "annotation 6 (train)"),
    ],
    ids=str,
)
def test_a_bad_annotation_is_named_and_the_others_are_read(
    tmp_path: Path, change: dict[str, Any], code: str, place: str
) -> None:
    scene = Scene(tmp_path)
    scene.content["train"]["annotations"][4].update(change)
    places = faults(scene)
    assert list(places) == [code]
    assert [text.startswith(place) for text in places[code]] == [True]
    kept = 32 if code == "repeated-id" else 31
    assert len(scene.check(read_images=False).records.splits[0].labels) == kept


@pytest.mark.parametrize(
    ("change", "code", "place"),
    [
        ({"id": 2}, "repeated-image", "image id 2 (train/3.png)"),
        ({"file_name": "2.png"}, "repeated-image", "2.png (train): image ids 2 and 3"),
        ({"file_name": None}, "malformed-record", "image 3 (train): image 3 has no 'file_name'"),
        ({"file_name": 7}, "malformed-record", "image 3 (train): its file_name is 7"),
        ({"width": -1}, "malformed-record", "image 3 (train): image 3 has width -1"),
    ],
    ids=str,
)
def test_a_bad_image_is_named(tmp_path: Path, change: dict[str, Any], code: str, place: str) -> None:
    scene = Scene(tmp_path)
    scene.content["train"]["images"][2].update(change)
    places = faults(scene)
    assert [text.startswith(place) for text in places[code]] == [True]
    assert set(places) <= {code, "unlisted-image", "unannotated-file", "repeated-box", "two-classes"}


def test_many_bad_annotations_are_all_named(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    rows = scene.content["train"]["annotations"]
    for row in rows[::3]:
        row["bbox"] = "none"
    places = faults(scene)["malformed-record"]
    assert [place.split(" (")[0] for place in places] == [f"annotation {row['id']}" for row in rows[::3]]


def test_repeated_categories_are_reported_and_the_first_is_used(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"train": 4})
    scene.content["train"]["categories"].append({"id": 4, "name": "dog"})
    checkup = scene.check(read_images=False)
    assert found(checkup) == {
        "malformed-record": ["categories (train): category name 'dog' is used twice: make them unique"]
    }
    assert checkup.records.class_names == ("cat", "dog", "owl")


def test_files_that_are_not_annotated_are_a_note(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (scene.root / "images/val/more.PNG").write_bytes(b"")
    (scene.root / "images/val/readme.txt").write_text("")
    assert faults(scene) == {"unannotated-file": [str(scene.root / "images/val/more.PNG")]}


def test_splits_may_share_a_folder(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.write()
    for split, content in scene.content.items():
        for image in content["images"]:
            (tmp_path / "images" / split / image["file_name"]).rename(tmp_path / f"images/{split}_{image['id']}.png")
            image["file_name"] = f"{split}_{image['id']}.png"
    (tmp_path / "images/other.png").write_bytes(b"")
    scene.write()
    splits = [
        collect_coco(split, tmp_path / f"annotations/instances_{split}.json", tmp_path / "images")
        for split in scene.content
    ]
    assert found(check_data(splits)) == {"unannotated-file": [str(tmp_path / "images/other.png")]}


def test_an_annotation_file_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DatasetError, match="not valid json"):
        collect_coco("train", tmp_path / "a.json", tmp_path)


def test_collecting_changes_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    before = copy.deepcopy(scene.content)
    scene.check()
    assert scene.content == before
    assert json.loads((tmp_path / "annotations/instances_train.json").read_text()) == before["train"]
