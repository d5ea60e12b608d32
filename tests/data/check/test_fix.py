"""The cleaned copy."""

from pathlib import Path

import numpy as np
import pytest

from detlit.data import CocoDataset, VocDataset
from detlit.data.check import check_data, collect, fix
from detlit.data.images import write_image
from tests.data.check.scenes import WIDTH, Scene, found
from tests.data.check.test_planted import PLANTS


def test_a_sound_split_is_copied_as_it_is(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.content["train"]["annotations"][3].update(iscrowd=1, segmentation={"counts": [1], "size": [1, 1]})
    fixed = fix(scene.check(), 0)
    assert fixed.content == scene.content["train"]
    assert (fixed.changes, fixed.left) == ((), ())


def test_what_is_certainly_wrong_is_left_out_and_the_rest_is_named(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for plant in PLANTS:
        plant(scene)
    fixed = fix(scene.check(), 0)
    kept = {row["id"] for row in fixed.content["annotations"]}
    assert kept == {*range(9, 33), 1001} - {18, 19, 20}
    assert [row["id"] for row in fixed.content["images"]] == list(range(3, 9))
    assert set(fixed.changes) == {
        "left out: 1 missing image",
        "left out: 1 unreadable image",
        "left out: 8 objects of these images",
        "left out: 1 box without area",
        "left out: 1 box outside its image",
        "left out: 1 box that is NaN or infinite",
        "left out: 1 box that repeats another of its class",
    }
    assert set(fixed.left) == {
        "1 image of another size than annotated",
        "1 image that is in two splits",
        "1 pair of nearly equal images in two splits",
        "1 box that another class has too",
        "1 split that numbers the classes in another way",
    }


def test_a_copy_is_sound(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"train": 8})
    scene.box("train", 5)[:] = [WIDTH - 20, 10.5, 40, 20]
    scene.box("train", 6)[2] = 0
    scene.content["train"]["annotations"][7]["category_id"] = 9
    scene.content["train"]["annotations"][8]["bbox"] = None
    fixed = fix(scene.check(), 0)
    assert fixed.changes == (
        "left out: 1 entry that cannot be read",
        "left out: 1 annotation of a class that is not declared",
        "left out: 1 box without area",
        "cut off at the edges: 1 box that reaches more than 2 pixels out of its image",
    )
    (cut,) = [row for row in fixed.content["annotations"] if row["id"] == 5]
    assert (cut["bbox"], cut["area"]) == ([WIDTH - 20, 10.5, 20, 20], 400)
    scene.content["train"] = fixed.content
    assert found(scene.check()) == {}
    fixed.write(tmp_path / "fixed.json")
    data = CocoDataset("fixed.json", "images/train", root=str(tmp_path))
    assert sum(len(data.load_sample(index).boxes) for index in range(len(data))) == 29


@pytest.mark.parametrize(("read_images", "size"), [(True, [48, 64]), (False, [0, 0])])
def test_sizes_that_no_annotation_says_are_those_of_the_images(
    tmp_path: Path, read_images: bool, size: list[int]
) -> None:
    write_image(tmp_path / "1.png", np.zeros((48, 64, 3), dtype=np.uint8))
    box = "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
    (tmp_path / "1.xml").write_text(f"<annotation><object><name>a</name>{box}</object></annotation>")
    splits, _ = collect({"train": VocDataset(".", ".", root=str(tmp_path))})
    fix(check_data(splits, read_images=read_images), 0).write(tmp_path / "clean.json")
    copied = CocoDataset("clean.json", root=str(tmp_path))
    assert copied.table.sizes.tolist() == [size]
    assert copied.load_target(0)["boxes"].tolist() == [[3, 3, 30, 30]]  # type: ignore[union-attr]
