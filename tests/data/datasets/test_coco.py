"""COCO json files: what is read from them, and what is said about bad ones."""

import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detlit.data import CocoDataset
from detlit.data.datasets.coco_file import read_class_names
from detlit.errors import AnnotationError, DatasetError, ImageReadError
from tests.data.conftest import CATEGORIES, CocoWriter, annotation, three_images


def dataset(root: Path, **arguments: Any) -> CocoDataset:
    return CocoDataset("train.json", "images/train", root=str(root), **arguments)


def test_nothing_is_read_before_first_use() -> None:
    data = CocoDataset("nowhere.json", "no/images", root="/does/not/exist", class_names=["a"])
    assert tuple(data.class_names) == ("a",)
    with pytest.raises(DatasetError, match=r"there is no annotation file /does/not/exist/nowhere\.json"):
        len(data)


@pytest.mark.parametrize(
    ("there", "hint"),
    [
        (
            ["train/_annotations.coco.json"],
            r"/annotations/instances_train.json, but \S+ is an export of Roboflow: use --data roboflow.",
        ),
        (["a.json", "more/b.json"], "holds a.json, more/b.json: check data.root and the data set's 'annotations'."),
        (
            ["annotations/train.json"],
            r"but \S+/annotations holds train.json: check data.root and the data set.s .annotations..",
        ),
        (["data.yaml"], "holds data.yaml, as YOLO data sets do: use --data yolo."),
        (["JPEGImages/1.jpg"], "holds JPEGImages, as VOC data sets do: use --data voc."),
        (["too/deep/a.json"], r"/annotations/instances_train.json: check data.root and the data set's 'annotations'."),
    ],
    ids=["roboflow", "other names", "the same folder", "yolo", "voc", "nothing near"],
)
def test_a_missing_file_is_told_with_what_is_there(there: list[str], hint: str, tmp_path: Path) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    data = CocoDataset("annotations/instances_train.json", "images/train", root=str(tmp_path))
    with pytest.raises(DatasetError, match=f"{hint}$"):
        data.setup()


def test_of_an_export_of_roboflow_a_missing_split_is_told(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/_annotations.coco.json").touch()
    data = CocoDataset("valid/_annotations.coco.json", "valid", root=str(tmp_path))
    with pytest.raises(DatasetError, match=r"holds train/_annotations\.coco\.json: check data.root"):
        data.setup()


def test_boxes_labels_crowds_and_areas(write_coco: CocoWriter) -> None:
    data = dataset(write_coco())
    assert (len(data), tuple(data.class_names)) == (3, ("cat", "owl", "dog"))
    image, target = data[2]
    assert (tuple(image.shape), image.dtype) == ((3, 30, 60), torch.uint8)
    assert (target["image_id"], target["dataset_index"], target["orig_size"]) == (20, 2, (30, 60))
    assert target["boxes"].tolist() == [[1, 2, 11, 22], [5, 5, 10, 10]]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [2, 0]
    assert target["iscrowd"].tolist() == [True, False]
    assert target["orig_area"].tolist() == [150.5, 25.0]
    assert target["orig_boxes"].dtype == torch.float64
    assert data[0][1]["orig_boxes"].tolist() == [[0.5, 0.25, 3.75, 8.25]]


def test_an_image_without_annotations_is_background_unless_left_out(write_coco: CocoWriter) -> None:
    root = write_coco()
    target = dataset(root)[1][1]
    assert (target["image_id"], tuple(target["boxes"].shape), tuple(target["orig_boxes"].shape)) == (10, (0, 4), (0, 4))
    assert [dataset(root, ignore_empty=True)[i][1]["image_id"] for i in range(2)] == [30, 20]
    assert len(dataset(root, ignore_empty=True)) == 2


def in_a_row(boxes: list[list[float]], **size: int) -> dict[str, Any]:
    """One image of 40x30 pixels, or of a size that the file does not say, and its boxes."""
    annotations = [annotation(key, 1, 2, box) for key, box in enumerate(boxes)]
    return {"images": [{"id": 1, "file_name": "1.png", **size}], "annotations": annotations, "categories": CATEGORIES}


@pytest.mark.parametrize(
    ("boxes", "size", "warning"),
    [
        (
            [[20 + i, 5, 39, 25] for i in range(10)],
            {},
            r"10 boxes .* images, 100% of all \(annotation 0, 1, 2, \.\.\.\); corners ",
        ),
        ([[20 + i, 5, 19 - i, 25] for i in range(8)] + [[1, -4, 9, 9], [1, 5, 44, 9]], {}, "2 boxes .* 20% of all"),
        ([[i, 5, 10, 10] for i in range(9)] + [[20, 5, 39, 25]], {}, None),  # one in ten may be a slip
        ([[20 + i, 5, 39, 25] for i in range(9)], {}, None),  # too few to tell
        ([[20 + i, 5, 24 - i, 27] for i in range(10)], {}, None),  # as sloppy boxes do
        ([[20 + i, 5, 39, 25] for i in range(10)], {"width": None}, None),
    ],
    ids=["corners for sizes", "top and right", "one in ten", "few", "a little", "unknown size"],
)
def test_many_boxes_far_out_of_their_images_are_told(
    boxes: list[list[float]], size: dict[str, Any], warning: str | None, write_coco: CocoWriter
) -> None:
    content = in_a_row(boxes, **{"width": 40, "height": 30} | size)
    root = write_coco({**content, "images": [{**content["images"][0], "width": 40}]})
    (root / "train.json").write_text(json.dumps(content))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset(root).setup()
    told = [str(item.message) for item in caught]
    assert len(told) == (warning is not None)
    if warning is not None:
        assert re.search(f"train.json has {warning}", told[0])
        assert told[0].endswith("run detlit check-data.")


def test_max_samples_keeps_the_first(write_coco: CocoWriter) -> None:
    data = dataset(write_coco(), ignore_empty=True, max_samples=1)
    assert (len(data), data[0][1]["image_id"], data[0][1]["labels"].tolist()) == (1, 30, [0])
    assert len(dataset(Path(data.root or ""), max_samples=99)) == 3


def test_categories_become_labels_by_name(write_coco: CocoWriter) -> None:
    data = dataset(write_coco(), class_names=["fox", "dog", "cat"])  # owl is declared, but never used
    assert data[2][1]["labels"].tolist() == [1, 2]


def test_the_class_list_can_be_changed_after_reading(write_coco: CocoWriter) -> None:
    data = dataset(write_coco())
    assert data[0][1]["labels"].tolist() == [0]
    data.use_class_names(["dog", "cat"])
    assert data[0][1]["labels"].tolist() == [1]


def test_classes_are_chosen_renamed_and_merged(write_coco: CocoWriter) -> None:
    root = write_coco()

    def read(classes: Any, **arguments: Any) -> tuple[tuple[str, ...], list[list[int]]]:
        data = dataset(root, classes=classes, **arguments)
        return tuple(data.class_names), [data[i][1]["labels"].tolist() for i in range(len(data))]

    assert read(["dog"]) == (("dog",), [[], [], [0]])
    assert read(["dog", "cat"]) == (("dog", "cat"), [[1], [], [0, 1]])
    assert read({"dog": "pet", "cat": "pet"}) == (("pet",), [[0], [], [0, 0]])
    assert read({"dog": "hound"}, ignore_empty=True) == (("hound",), [[0]])
    assert read({"dog": "hound"}, class_names=["cat", "hound"]) == (("cat", "hound"), [[], [], [1]])
    with pytest.raises(DatasetError, match=r"classes asks for 'fox', but .*train\.json has cat, owl, dog: correct"):
        read(["fox"])
    with pytest.raises(DatasetError, match="annotates class 'hound', but the classes of this run are cat"):
        read({"dog": "hound"}, class_names=["cat"])


def test_boxes_and_labels_stay_together_when_classes_are_left_out(write_coco: CocoWriter) -> None:
    target = dataset(write_coco(), classes=["cat"])[2][1]
    assert (target["boxes"].tolist(), target["labels"].tolist()) == ([[5, 5, 10, 10]], [0])
    assert (target["orig_area"].tolist(), target["orig_iscrowd"].tolist()) == ([25], [False])


def test_paths_and_sizes_are_known_without_decoding(write_coco: CocoWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_coco()
    monkeypatch.setattr("detlit.data.images.decode_image", lambda *_: pytest.fail("decoded"))
    data = dataset(root)
    assert (data.image_path(2), data.image_size(2)) == (root / "images/train/20.png", (30, 60))


@pytest.mark.parametrize("folder", ["images/train", "train"])
@pytest.mark.parametrize("given", ["images/train", "train"])
def test_the_images_folder_may_come_with_or_without_images(write_coco: CocoWriter, folder: str, given: str) -> None:
    root = write_coco(folder=folder)
    assert CocoDataset("train.json", given, root=str(root))[0][0].shape == (3, 30, 40)


def test_file_names_may_hold_folders(write_coco: CocoWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    content = three_images()
    for image in content["images"]:
        image["file_name"] = f"images/{image['id']}/x.png"
    monkeypatch.chdir(write_coco(content, folder="."))
    assert CocoDataset("train.json")[2][0].shape == (3, 30, 60)


def test_degenerate_boxes_are_evaluated_but_not_trained_on(write_coco: CocoWriter) -> None:
    content = three_images()
    for key, bbox in enumerate([[5, 5, 0, 3], [8, 5, -3, 4], [40, 0, 5, 5], [35, 25, 20, 20]], 10):
        content["annotations"].append(annotation(key, 30, 5, bbox))
    data = dataset(write_coco(content))
    with pytest.warns(UserWarning, match=r"train\.json has 3 boxes without area .* \(annotation 10, 11, 12\)"):
        data.setup()
    target = data[0][1]
    assert target["boxes"].tolist() == [[0.5, 0.25, 3.75, 8.25], [35, 25, 40, 30]]
    assert target["labels"].tolist() == [0, 1]
    assert target["orig_boxes"].tolist()[1:] == [[5, 5, 5, 8], [8, 5, 5, 9], [40, 0, 45, 5], [35, 25, 55, 45]]
    assert target["orig_labels"].tolist() == [0, 1, 1, 1, 1]


def test_everything_odd_is_in_one_warning_and_said_once(write_coco: CocoWriter) -> None:
    content = three_images()
    content["annotations"] += [annotation(key, 30, 5, [9, 9, 0, 0]) for key in range(50, 55)]
    data = dataset(write_coco(content))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup()
        data.setup()
        data[0]
    (message,) = [str(warning.message) for warning in caught]
    assert "5 boxes without area" in message
    assert "(annotation 50, 51, 52, ...)" in message
    assert "4 boxes that repeat another (annotation 51, 52, 53, ...)" in message


def test_clean_data_say_nothing(write_coco: CocoWriter) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset(write_coco()).setup()


def broken(**changes: Any) -> dict[str, Any]:
    return {**three_images(), **changes}


def with_annotation(**changes: Any) -> dict[str, Any]:
    return broken(annotations=[{**annotation(4, 30, 2, [1, 2, 3, 4]), **changes}])


def with_image(**changes: Any) -> dict[str, Any]:
    content = three_images()
    content["images"][0].update(changes)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{oops", r"train\.json is not valid json \(.*\): export it again"),
        ("", r"is not valid json"),
        ("[]", "holds a list: a COCO file is an object"),
        ({"annotations": [], "categories": CATEGORIES}, "has no list 'images'"),
        (broken(annotations=None), "has no list 'annotations'"),
        ({"images": [], "annotations": []}, "has no list 'categories'"),
        (broken(images=[], annotations=[]), r"train\.json lists no images"),
        (broken(categories=[]), "declares no categories"),
        (broken(categories=[{"id": 1}]), r"category 1 has no 'name'"),
        (broken(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "category id 1 is used twice"),
        (broken(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "category name 'a' is used twice"),
        (with_image(id=20), "image id 20 is used twice"),
        (with_image(id="x1"), "image x1 has id 'x1': write an integer"),
        (with_image(id=2**63), "image 9223372036854775808 has id 9223372036854775808: write an integer of at most 64"),
        (with_image(id=True), "image True has id True: write an integer"),
        (with_image(file_name=None), "image 30 has no 'file_name'"),
        (with_annotation(image_id=99), "annotation 4 belongs to image id 99, which 'images' does not list"),
        (with_annotation(category_id=9), r"annotation 4 has category_id 9, .* the declared ones are 2, 5, 7"),
        (with_annotation(bbox=[1, 2, float("nan"), 4]), r"annotation 4 has bbox \[1, 2, nan, 4\]: write four finite"),
        (with_annotation(bbox=[1, 2, float("inf"), 4]), r"annotation 4 has bbox \[1, 2, inf, 4\]"),
        (with_annotation(bbox=[1, 2, 3]), r"annotation 4 has bbox \[1, 2, 3\]"),
        (with_annotation(bbox=["1", 2, 3, 4]), r"annotation 4 has bbox \['1', 2, 3, 4\]"),
        (with_annotation(bbox=None), "annotation 4 has no 'bbox'"),
        (with_annotation(area="big"), "annotation 4 has area 'big'"),
        (with_annotation(image_id=-(2**63) - 1), "annotation 4 has image_id -9223372036854775809: write an integer"),
        (with_annotation(category_id=2**64), "annotation 4 has category_id 18446744073709551616: write an integer"),
        (with_annotation(iscrowd="0"), "annotation 4 has iscrowd '0': write 0 or 1"),
        (with_annotation(iscrowd=2), "annotation 4 has iscrowd 2"),
        (with_annotation(iscrowd=float("nan")), "annotation 4 has iscrowd nan"),
        (with_annotation(iscrowd=[]), r"annotation 4 has iscrowd \[\]"),
    ],
)
def test_files_that_cannot_be_understood(write_coco: CocoWriter, content: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        dataset(write_coco(content)).setup()
    assert "train.json" in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(("iscrowd", "expected"), [(0, False), (1, True), (False, False), (True, True), (None, False)])
def test_spellings_of_iscrowd(write_coco: CocoWriter, iscrowd: Any, expected: bool) -> None:
    content = with_annotation(iscrowd=iscrowd)
    assert dataset(write_coco(content))[0][1]["iscrowd"].tolist() == [expected]


def test_many_lost_annotations_are_counted(write_coco: CocoWriter) -> None:
    content = broken(annotations=[annotation(key, 99, 2, [0, 0, 1, 1]) for key in range(5)])
    with pytest.raises(AnnotationError, match=r"annotation 0 belongs to image id 99, .* \(and 4 others\)"):
        dataset(write_coco(content)).setup()


def test_annotated_classes_that_the_run_lacks_are_refused(write_coco: CocoWriter) -> None:
    cures = (
        "correct the name, add it to data.class_names, or, .* choose the data it was trained on, or another checkpoint"
    )
    with pytest.raises(DatasetError, match=f"annotates class 'dog', but the classes of this run are cat, fox: {cures}"):
        dataset(write_coco(), class_names=["cat", "fox"]).setup()


def test_missing_images_are_counted_before_training(write_coco: CocoWriter) -> None:
    root = write_coco()
    (root / "images/train/10.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 3 images are missing, the first is .*10\.png: check"):
        dataset(root).setup()
    assert len(dataset(root, ignore_empty=True)) == 2  # the missing one is not asked for


def test_a_missing_folder_is_named(write_coco: CocoWriter) -> None:
    with pytest.raises(DatasetError, match=r"there is no image folder .*images/val: check data\.root"):
        CocoDataset("train.json", "images/val", root=str(write_coco())).setup()


def test_an_image_of_another_size_is_refused(write_coco: CocoWriter) -> None:
    root = write_coco()
    content = with_image(width=44)
    (root / "train.json").write_text(json.dumps(content))
    with pytest.raises(ImageReadError, match=r"30\.png has 40x30 pixels, but its annotations say 44x30"):
        dataset(root)[0]


@pytest.mark.parametrize("height", ["30", True, float("nan"), float("inf"), 80.5, 0, -30, 2**63, [30]])
def test_sizes_that_are_no_positive_integers_are_refused(write_coco: CocoWriter, height: Any) -> None:
    root = write_coco()
    (root / "train.json").write_text(json.dumps(with_image(height=height)))
    message = f"train.json: image 30 has height {height!r}: write a positive integer, or leave"
    with pytest.raises(AnnotationError, match=re.escape(message)):
        dataset(root).setup()


def test_sizes_may_be_whole_floats(write_coco: CocoWriter) -> None:
    root = write_coco()
    (root / "train.json").write_text(json.dumps(with_image(width=40.0, height=30.0)))
    assert dataset(root)[0][0].shape == (3, 30, 40)


def test_sizes_may_be_missing(write_coco: CocoWriter) -> None:
    content = three_images()
    root = write_coco(content)
    for image in content["images"]:
        del image["width"], image["height"]
    (root / "train.json").write_text(json.dumps(content))
    assert dataset(root)[0][0].shape == (3, 30, 40)


def test_the_selection_leaves_nothing(write_coco: CocoWriter) -> None:
    with pytest.raises(DatasetError, match="leaves no images: check ignore_empty"):
        dataset(write_coco(broken(annotations=[])), ignore_empty=True).setup()


@pytest.mark.parametrize(
    "content",
    [
        three_images(),
        dict(reversed(three_images().items())),
        broken(info={"categories": [{"id": 1, "name": "trap"}]}),
        {"info": '"categories": [{"id": 1, "name": "trap"}]}', **three_images()},
        {**three_images(), "licenses": [{"x": {"categories": [{"id": 1, "name": "trap"}]}}]},
    ],
    ids=["last", "first", "nested", "quoted", "nested last"],
)
def test_class_names_are_found_wherever_the_categories_are(write_coco: CocoWriter, content: dict[str, Any]) -> None:
    assert read_class_names(write_coco(content) / "train.json") == ("cat", "owl", "dog")


def test_class_names_of_a_large_file_need_no_full_parse(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [oops, "categories": [{"id": 3, "name": "é"}] }\n', encoding="utf-8")
    assert read_class_names(tmp_path / "a.json") == ("é",)


def test_it_pickles_to_workers(write_coco: CocoWriter) -> None:
    data = dataset(write_coco())
    data.setup()
    copied = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copied[2][0], data[2][0])
