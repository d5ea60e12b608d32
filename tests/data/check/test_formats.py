"""The same faults in YOLO and VOC files and in data sets of one's own, collected by :func:`collect`."""

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detlit.data import CocoDataset, DetectionDataset, GroundTruth, ShapesDataset
from detlit.data.check import Checkup, check_data, collect, fix
from detlit.data.check.records import Split
from detlit.data.datasets.concat import ConcatDataset
from detlit.data.datasets.guess import guess_datasets
from detlit.data.datasets.voc import VocDataset
from detlit.data.datasets.yolo import YoloDataset
from detlit.errors import DatasetError
from tests.data.check.scenes import CLASSES, HEIGHT, WIDTH, Scene, found, picture


def check(root: Path, read_images: bool = True) -> Checkup:
    splits, problems = collect(guess_datasets(root))
    return check_data(splits, problems=problems, read_images=read_images)


def write_yolo(root: Path) -> Path:
    """Write four training and two validation images with two objects each; return the folder of training labels."""
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            cv2.imwrite(str(root / f"images/{split}/{number}.png"), picture(number))
            lines = "0 0.25 0.25 0.2 0.3\n\n1 0.75 0.75 0.2 0.3\n"
            (root / f"labels/{split}/{number}.txt").write_text(lines)
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: images/train\nval: images/val\n")
    return root / "labels" / "train"


def test_sound_yolo_labels(tmp_path: Path) -> None:
    labels = write_yolo(tmp_path)
    (labels / "3.txt").unlink()  # background
    (labels / "classes.txt").write_text("cat\ndog\n")
    checkup = check(tmp_path)
    assert found(checkup) == {}
    assert checkup.statistics.empty.tolist() == [1, 0]
    np.testing.assert_allclose(checkup.records.boxes[0], [24, 12, 56, 48])


@pytest.mark.parametrize(
    ("line", "code", "place"),
    [
        ("0 0.5 0.5 0.2", "malformed-record", "labels/train/1.txt line 2 (train): '0 0.5 0.5 0.2' has 4 columns"),
        ("0 0.5 nan 0.2 0.2", "malformed-record", "labels/train/1.txt line 2 (train): '0 0.5 nan"),
        ("2 0.5 0.5 0.2 0.2", "undeclared-class", "labels/train/1.txt line 2 (train): class 2"),
        ("0 0.5 0.5 0 0.2", "zero-area-box", "labels/train/1.txt line 2 (images/train/1.png)"),
        ("0 80 60 32 36", "pixel-box", "labels/train/1.txt line 2 (images/train/1.png)"),
        ("0 0.95 0.5 0.2 0.2", "overhanging-box", "labels/train/1.txt line 2 (images/train/1.png)"),
        ("0 0.25 0.25 0.2 0.3", "repeated-box", "labels/train/1.txt line 2 (images/train/1.png)"),
    ],
)
def test_a_bad_yolo_line_is_named(tmp_path: Path, line: str, code: str, place: str) -> None:
    labels = write_yolo(tmp_path)
    (labels / "1.txt").write_text(f"0 0.25 0.25 0.2 0.3\n{line}\n1 0.75 0.75 0.2 0.3\n")
    faults = found(check(tmp_path))
    assert list(faults) == [code]
    assert faults[code][0].startswith(place)


def test_label_files_without_images_and_unreadable_images(tmp_path: Path) -> None:
    labels = write_yolo(tmp_path)
    (labels / "9.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "images/val/4.png").write_bytes(b"")
    faults = found(check(tmp_path))
    assert faults["lost-labels"] == ["labels/train/9.txt (train)"]
    assert faults["unreadable-image"] == ["images/val/4.png: it cannot be decoded (0 bytes)"]
    assert len(faults) == 2


def test_yolo_labels_that_hold_corners(tmp_path: Path) -> None:
    labels = write_yolo(tmp_path)
    for number in range(4):
        rows = [f"{number % 2} {x} {y} {x + 0.3} {y + 0.4}\n" for x, y in ((0.02, 0.04), (0.5, 0.1), (0.6, 0.55))]
        (labels / f"{number}.txt").write_text("".join(rows))
    (finding,) = check(tmp_path).findings
    assert finding.code == "other-format"
    assert finding.remark.startswith("train: the numbers fit the images as left, top, right, bottom")


def test_a_cleaned_copy_of_yolo_labels_counts_categories_from_1(tmp_path: Path) -> None:
    labels = write_yolo(tmp_path)
    (labels / "0.txt").write_text("1 0.5 0.5 0 0.2\n1 0.5 0.5 0.2 0.2\n0 0.95 0.5 0.2 0.2\n")
    content = fix(check(tmp_path), 0).content
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert content["images"][0] == {"id": 1, "file_name": "images/train/0.png", "height": HEIGHT, "width": WIDTH}
    first, second, *_ = content["annotations"]
    assert (first["id"], first["image_id"], first["category_id"], first["iscrowd"]) == (2, 1, 2, 0)
    np.testing.assert_allclose(first["bbox"], [64, 48, 32, 24])
    np.testing.assert_allclose(second["bbox"], [136, 48, 24, 24])


def write_voc(root: Path) -> Path:
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir()
    for number in range(3):
        cv2.imwrite(str(root / f"JPEGImages/{number}.jpg"), picture(number))
        write_xml(root / f"Annotations/{number}.xml", [("cat", (10, 10, 50, 60)), ("dog", (70, 40, 120, 90))])
    return root / "Annotations"


def write_xml(path: Path, objects: list[tuple[str, tuple[float, float, float, float]]], hard: int = 0) -> None:
    rows = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    )
    path.write_text(f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{rows}</annotation>")


def test_voc_files(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    assert found(check(tmp_path)) == {}
    write_xml(folder / "0.xml", [("cat", (10, 10, 10, 60)), ("dog", (70, 40, 60, 90))])
    (folder / "1.xml").write_text("<annotation>")
    write_xml(folder / "2.xml", [("cat", (10, 10, 50, 60)), ("cat", (10, 10, 50, 60))], hard=1)
    faults = found(check(tmp_path))
    assert faults.pop("malformed-record")[0].startswith("1.xml (train): is not valid xml")
    assert faults == {
        "zero-area-box": ["object 1 (train/0.jpg)"],
        "negative-box": ["object 2 (train/0.jpg)"],
    }


def test_voc_boxes_given_by_width_and_height(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    boxes = [(90.0, 70.0, 30.0, 20.0), (60.0, 50.0, 70.0, 60.0), (10.0, 80.0, 100.0, 35.0), (100.0, 10.0, 50.0, 40.0)]
    for number in range(3):
        write_xml(folder / f"{number}.xml", [("cat", box) for box in boxes])
    (finding,) = check(tmp_path).findings
    assert finding.remark.startswith(
        "train: the numbers fit the images as left, top, width, height, not as left, top, r"
    )


@pytest.mark.parametrize(
    ("difficult", "boxes", "crowds"), [("ignore", 2, 2), ("keep", 2, 0), ("drop", 0, 0)], ids=["ignore", "keep", "drop"]
)
def test_difficult_objects_are_read_as_the_data_set_reads_them(
    tmp_path: Path, difficult: Literal["ignore", "keep", "drop"], boxes: int, crowds: int
) -> None:
    folder = write_voc(tmp_path)
    for number in range(3):
        write_xml(folder / f"{number}.xml", [("cat", (10, 10, 50, 60)), ("dog", (70, 40, 120, 90))], hard=number == 0)
    (split,), _ = collect({"train": VocDataset(root=str(tmp_path), difficult=difficult)})
    assert ((split.image == 0).sum(), split.iscrowd.sum()) == (boxes, crowds)


def test_the_options_of_readers_are_followed(tmp_path: Path) -> None:
    (tmp_path / "voc").mkdir()
    write_voc(tmp_path / "voc")
    data = VocDataset(root=str(tmp_path / "voc"), one_based=True, class_names=["cat"])
    (split,), _ = collect({"train": data})
    assert split.boxes[0].tolist() == [9, 9, 50, 60]
    assert [problem.text for problem in split.problems] == ["'dog'"] * 3
    labels = write_yolo(tmp_path / "yolo")
    (labels / "0.txt").write_text("0 0.25 0.25 0.2 0.3 0.9\n")
    for confidence, codes in ((False, ["malformed-record"]), (True, [])):
        splits, _ = collect({"train": YoloDataset(root=str(tmp_path / "yolo"), confidence=confidence)})
        assert list(found(check_data(splits))) == codes


def selected(kind: str, root: Path, **selection: Any) -> Split:
    """Return training images of cats and dogs, the second without objects, as far as a selection keeps them."""
    dataset: DetectionDataset
    if kind == "coco":
        scene = Scene(root)
        train = scene.content["train"]
        train["images"] = train["images"][:3]
        train["annotations"] = [
            {**row, "category_id": 1 + row["id"] % 2} for row in train["annotations"] if row["image_id"] in (1, 3)
        ]
        scene.write()
        dataset = CocoDataset("annotations/instances_train.json", "images/train", root=str(root), **selection)
    elif kind == "yolo":
        (write_yolo(root) / "1.txt").unlink()
        dataset = YoloDataset(root=str(root), **selection)
    else:
        root.mkdir()
        (write_voc(root) / "1.xml").unlink()
        dataset = VocDataset(root=str(root), **selection)
    (split,), problems = collect({"train": dataset})
    assert (problems, split.problems) == ([], [])
    dataset.setup()
    assert (len(dataset), tuple(dataset.class_names)) == (len(split.images), split.class_names)
    for index in range(len(dataset)):  # what is checked is what is trained on
        truth, own = dataset.load_target(index), split.image == index
        assert str(truth["path"]) == split.paths[index]
        np.testing.assert_allclose(np.asarray(truth["boxes"]), split.boxes[own], atol=1e-4)
        assert np.asarray(truth["labels"]).tolist() == split.labels[own].tolist()
    return split


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"classes": ["dog", "cat"]},
        {"classes": ["dog"]},
        {"classes": {"cat": "animal", "dog": "animal"}},
        {"ignore_empty": True},
        {"max_samples": 2},
        {"classes": {"dog": "animal"}, "ignore_empty": True, "max_samples": 1},
    ],
    ids=str,
)
def test_what_a_selection_keeps_is_checked(kind: str, selection: dict[str, Any], tmp_path: Path) -> None:
    split = selected(kind, tmp_path / "data", **selection)
    assert (
        split.class_names
        == {
            "": ("cat", "dog", "owl")[: 3 if kind == "coco" else 2],
            "['dog', 'cat']": ("dog", "cat"),
            "['dog']": ("dog",),
            "{'cat': 'animal', 'dog': 'animal'}": ("animal",),
            "{'dog': 'animal'}": ("animal",),
        }[str(selection.get("classes", ""))]
    )


def test_classes_that_get_one_name_in_all_splits_are_no_fault(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.content["val"]["categories"] = [{"id": 7, "name": "animal"}]
    for row in scene.content["val"]["annotations"]:
        row["category_id"] = 7
    scene.write()
    train, val = (
        CocoDataset(f"annotations/instances_{name}.json", f"images/{name}", root=str(tmp_path), classes=classes)
        for name, classes in (("train", dict.fromkeys(CLASSES, "animal")), ("val", None))
    )
    splits, problems = collect({"train": train, "val": val})
    checkup = check_data(splits, problems=problems)
    assert found(checkup) == {}
    fix(checkup, 0).write(tmp_path / "clean.json")
    copied = CocoDataset("clean.json", "images/train", root=str(tmp_path))
    assert (copied.class_names, len(copied.table.labels)) == (("animal",), 32)


def test_a_class_to_keep_that_is_not_there_is_reported(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    with pytest.raises(DatasetError, match=r"classes asks for 'cow', but .* has cat, dog: correct the name"):
        collect({"train": YoloDataset(root=str(tmp_path), classes=["cow"])})


class Mine(DetectionDataset):
    class_names = CLASSES

    def __init__(self, boxes: list[list[float]], labels: list[int], fail: bool = False) -> None:
        self.boxes, self.labels, self.fail = boxes, labels, fail

    def __len__(self) -> int:
        return 2

    def load_image(self, index: int) -> NDArray[np.uint8]:
        if self.fail and index:
            raise OSError("the archive ends early")
        return picture(index)

    def load_target(self, index: int) -> GroundTruth:
        return {"boxes": np.array(self.boxes), "labels": np.array(self.labels)}


def test_a_data_set_of_ones_own(tmp_path: Path) -> None:
    good = [10.0, 10.0, 40.0, 40.0]
    data = Mine([good, [150.0, 10.0, 190.0, 40.0]], [0, 1], fail=True)
    splits, problems = collect({"train": data})
    assert found(check_data(splits, class_names=["cat", "dog", "owl"], problems=problems)) == {
        "unreadable-image": ["train/item 1: the archive ends early"],
        "overhanging-box": ["box 1 (train/item 0)"],
        "unused-class": ["owl"],
    }
    splits, _ = collect({"train": Mine([good, good], [0, 5])})
    assert found(check_data(splits))["undeclared-class"] == ["item 0 (train): label 5", "item 1 (train): label 5"]
    splits, _ = collect({"train": Mine([good, good], [0])})
    assert found(check_data(splits))["malformed-record"][0] == "item 0 (train): 2 boxes, 1 labels"


def test_generated_shapes_are_sound() -> None:
    splits, _ = collect({"train": ShapesDataset(40, seed=0), "val": ShapesDataset(20, seed=1)})
    assert {finding.code for finding in check_data(splits).findings} <= {"small-object"}


def test_a_split_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.write()
    datasets = guess_datasets(tmp_path)
    (tmp_path / "annotations/instances_val.json").write_text("{")
    splits, problems = collect(datasets)
    faults = found(check_data(splits, problems=problems))
    assert [split.name for split in splits] == ["train", "test"]
    assert faults["unreadable-annotations"][0].startswith("val: annotation file")
    for name in ("train", "test"):
        (tmp_path / f"annotations/instances_{name}.json").unlink()
    with pytest.raises(DatasetError, match="there is no annotation file"):
        collect(datasets)


@pytest.mark.parametrize(("split", "code"), [("test", "no-test-split"), ("val", "unreadable-annotations")])
@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_a_test_split_that_is_not_there_is_no_error(format: str, split: str, code: str, tmp_path: Path) -> None:
    data: dict[str, DetectionDataset] = {"train": ShapesDataset(2)}
    if format == "coco":
        data[split] = CocoDataset(f"instances_{split}.json", root=str(tmp_path))
    elif format == "voc":
        data[split] = VocDataset(split=split, root=str(tmp_path))
    else:
        (tmp_path / "data.yaml").write_text("names: [a]\ntrain: images\n")
        data[split] = YoloDataset(split=split, root=str(tmp_path))
    _, problems = collect(data)
    assert [(problem.code, problem.place) for problem in problems] == [(code, split)]


def test_joined_data_sets_are_read_part_by_part(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "coco")
    scene.box("train", 1)[2] = 0.0
    scene.write()
    write_yolo(tmp_path / "yolo")
    first = guess_datasets(tmp_path / "coco")["train"]
    second = guess_datasets(tmp_path / "yolo")["train"]
    splits, _ = collect({"train": ConcatDataset([first, second, Mine([[150.0, 10.0, 190.0, 40.0]], [2])])})
    checkup = check_data(splits)
    assert found(checkup) == {
        "zero-area-box": ["annotation 1 (train/1.png)"],
        "overhanging-box": ["box 0 (train/item 0)", "box 0 (train/item 1)"],
        "repeated-file": [f"train/{number}.png and images/train/{number}.png" for number in (1, 2, 3)],
    }
    assert checkup.statistics.images.tolist() == [8 + 4 + 2]
    assert checkup.statistics.objects[0].tolist() == [10 + 4, 11 + 4, 11 + 2]
