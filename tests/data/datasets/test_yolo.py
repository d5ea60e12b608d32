"""YOLO data sets: layouts, and what is said about bad ones."""

import os
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from detlit.data import YoloDataset
from detlit.errors import AnnotationError, ConfigurationError, DatasetError, ImageReadError

NAMES = ["cat", "dog"]


def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def put(root: Path, labels: dict[str, str | None], yaml: str | None = None) -> Path:
    """Write an image of 40x30 pixels and a label file for each name; ``None`` writes no label file."""
    for name, text in labels.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photo())
        if text is not None:
            folder = Path(str(path.parent).replace("images", "labels"))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / path.with_suffix(".txt").name).write_text(text)
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)
    return root


def boxes(data: YoloDataset, index: int) -> list[list[float]]:
    found: list[list[float]] = data[index][1]["boxes"].tolist()
    return found


def test_boxes_labels_and_background(tmp_path: Path) -> None:
    images: dict[str, str | None] = {
        "images/train/b.png": "1 0.5 0.5 0.5 0.2\n0 0.25 0.5 0.5 1 0.5 0 0 0.5\n",
        "images/train/sub/a.JPG": "",
        "images/train/c.bmp": None,
    }
    data = YoloDataset(root=str(put(tmp_path, images, "train: images/train\nnames: [cat, dog]")))
    assert (len(data), tuple(data.class_names)) == (3, ("cat", "dog"))
    image, target = data[0]
    assert (tuple(image.shape), target["orig_size"]) == ((3, 30, 40), (30, 40))
    assert target["boxes"].tolist() == [[10, 12, 30, 18], [0, 0, 20, 30]]
    assert target["labels"].tolist() == [1, 0]
    assert target["iscrowd"].tolist() == [False, False]
    assert target["orig_area"].tolist() == [pytest.approx(120), 600]
    assert [Path(data[i][1]["path"]).name for i in range(3)] == ["b.png", "c.bmp", "a.JPG"]
    assert [len(boxes(data, i)) for i in (1, 2)] == [0, 0]
    assert (data.image_path(0), data.image_size(0)) == (tmp_path / "images/train/b.png", (30, 40))
    assert [data[i][1]["image_id"] for i in range(3)] == [0, 1, 2]


def test_shared_options(tmp_path: Path) -> None:
    images = {"images/1.png": "1 .5 .5 .5 .2\n", "images/2.png": "0 .5 .5 .5 .2\n", "images/3.png": None}
    root = str(put(tmp_path, images))

    def read(**arguments: Any) -> list[tuple[int, list[int]]]:
        data = YoloDataset(images="images", root=root, class_names=NAMES, **arguments)
        return [(target["image_id"], target["labels"].tolist()) for _, target in (data[i] for i in range(len(data)))]

    assert read() == [(0, [1]), (1, [0]), (2, [])]
    assert read(ignore_empty=True) == [(0, [1]), (1, [0])]
    assert read(classes=["dog"]) == [(0, [0]), (1, []), (2, [])]
    assert read(classes=["dog"], ignore_empty=True) == [(0, [0])]
    assert read(classes=["dog", "cat"]) == [(0, [0]), (1, [1]), (2, [])]
    assert read(classes={"cat": "pet", "dog": "pet"}, max_samples=2) == [(0, [0]), (1, [0])]
    with pytest.raises(DatasetError, match=r"classes asks for 'cow', but .*images has cat, dog"):
        read(classes=["cow"])
    for wrong in ([], "cat", ["cat", "cat"]):
        with pytest.raises(ConfigurationError, match="must name classes, each once"):
            read(classes=wrong)
    for count in (0, -1):
        with pytest.raises(ConfigurationError, match=f"max_samples={count} keeps no images"):
            read(max_samples=count)
    data = YoloDataset(images="images", root=root, class_names=NAMES)
    data.use_class_names(["cat"])
    with pytest.raises(DatasetError, match=r"images annotates class 'dog', but the classes of this run are cat"):
        data.setup()


@pytest.mark.parametrize(
    ("folder", "yaml", "split"),
    [
        ("images/val", "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}", "val"),
        ("valid/images", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']", "val"),
        ("images/test", "test: test.txt\nnames: [cat, dog]", "test"),
        ("images/train", "train: [images/train]\nnames: [cat, dog]", "train"),
    ],
    ids=["ultralytics", "roboflow", "list", "several"],
)
def test_layouts(tmp_path: Path, folder: str, yaml: str, split: Any) -> None:
    put(tmp_path, {f"{folder}/a.png": "1 .5 .5 .5 .2"}, yaml)
    (tmp_path / "test.txt").write_text("./images/test/a.png\n")
    assert boxes(YoloDataset(split, root=str(tmp_path)), 0) == [[10, 12, 30, 18]]


def test_labels_elsewhere_or_beside_the_images(tmp_path: Path) -> None:
    put(tmp_path, {"photos/sub/a.png": "1 .5 .5 .5 .2"})
    arguments: dict[str, Any] = {"images": "photos", "root": str(tmp_path), "class_names": NAMES}
    assert len(boxes(YoloDataset(**arguments), 0)) == 1
    (tmp_path / "photos").rename(tmp_path / "images")
    arguments["images"] = "images"
    assert len(boxes(YoloDataset(**arguments), 0)) == 1  # no folder labels: beside the image
    (tmp_path / "txt/sub").mkdir(parents=True)
    (tmp_path / "images/sub/a.txt").rename(tmp_path / "txt/sub/a.txt")
    assert len(boxes(YoloDataset(**arguments, labels="txt"), 0)) == 1
    with pytest.raises(DatasetError, match=r"none of the 1 images of .*images has a label file, the first .*a\.txt"):
        YoloDataset(**arguments).setup()
    with pytest.raises(ConfigurationError, match="labels='txt' mirrors one folder of images"):
        YoloDataset(labels="txt")


def test_a_box_may_reach_over_the_edge_and_have_no_area(tmp_path: Path) -> None:
    root = put(tmp_path, {"images/a.png": "0 1 1 .5 .5\n0 .5 .5 0 .5\n0 .5 .5 -.1 .5\n1 1.5 .5 .2 .2\n"})
    data = YoloDataset(images="images", root=str(root), class_names=NAMES)
    with pytest.warns(UserWarning, match=r"3 boxes without area in the image, .* \(object 2 of images/a\.png, 3 of"):
        data.setup()
    assert boxes(data, 0) == [[30, 22.5, 40, 30]]
    np.testing.assert_allclose(data[0][1]["orig_boxes"][1], [20, 7.5, 20, 22.5])
    assert len(data[0][1]["orig_boxes"]) == 4


def test_confidence_is_an_option(tmp_path: Path) -> None:
    put(tmp_path, {"images/a.png": "1 .5 .5 .5 .2 .9"})
    arguments: dict[str, Any] = {"images": "images", "root": str(tmp_path), "class_names": NAMES}
    with pytest.raises(AnnotationError, match=r"labels/a\.txt line 1: .* has 6 columns"):
        YoloDataset(**arguments).setup()
    assert boxes(YoloDataset(**arguments, confidence=True), 0) == [[10, 12, 30, 18]]


def test_a_class_without_name_is_refused(tmp_path: Path) -> None:
    put(tmp_path, {"images/a.png": "0 .5 .5 .5 .2\n2 .5 .5 .5 .2"})
    data = YoloDataset(images="images", root=str(tmp_path), class_names=NAMES)
    with pytest.raises(AnnotationError, match=r"object 2 of images/a\.png has class 2, but 2 classes are named, 0 to"):
        data.setup()


def test_an_unused_class_and_one_that_validation_lacks_keep_their_labels(tmp_path: Path) -> None:
    yaml = "train: images/train\nval: images/val\nnames: [unused, cat, dog]"
    put(tmp_path, {"images/train/a.png": "1 .5 .5 .5 .2\n2 .2 .2 .1 .1", "images/val/a.png": "2 .5 .5 .5 .2"}, yaml)
    for split, labels in (("train", [1, 2]), ("val", [2])):
        data = YoloDataset(split, root=str(tmp_path))  # type: ignore[arg-type]
        assert (data[0][1]["labels"].tolist(), len(data.class_names)) == (labels, 3)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no file .*data\.yaml"):
        YoloDataset(root=str(tmp_path)).setup()
    put(tmp_path, {}, "train: images/train\nval: list.txt\nnames: [cat]")
    with pytest.raises(DatasetError, match=r"there is no folder .*images/train: check data\.root"):
        YoloDataset(root=str(tmp_path)).setup()
    with pytest.raises(DatasetError, match=r"data\.yaml names no split 'test'"):
        YoloDataset("test", root=str(tmp_path)).setup()
    (tmp_path / "list.txt").write_text("images/x.jpg\n")
    with pytest.raises(DatasetError, match=r"1 of the 1 images of .*\(val\) are missing, the first is .*images/x\.jpg"):
        YoloDataset("val", root=str(tmp_path)).setup()
    (tmp_path / "images/train").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"there are no images in .*images/train: check"):
        YoloDataset(root=str(tmp_path)).setup()


def test_two_images_for_one_label_file_are_refused(tmp_path: Path) -> None:
    put(tmp_path, {"images/a.png": "", "images/a.jpg": ""})
    with pytest.raises(DatasetError, match=r"a\.jpg and .*a\.png share the label file .*a\.txt: rename one"):
        YoloDataset(images="images", root=str(tmp_path), class_names=NAMES).setup()


def test_a_file_that_is_no_image_is_named_before_training(tmp_path: Path) -> None:
    put(tmp_path, {"images/a.png": "0 .5 .5 .5 .2"})
    (tmp_path / "images/a.png").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"images/a\.png cannot be decoded"):
        YoloDataset(images="images", root=str(tmp_path), class_names=NAMES).setup()


def test_boxes_are_fractions_of_the_image_as_displayed(tmp_path: Path) -> None:
    put(tmp_path, {"images/a.jpg": "0 .5 .25 1 .5"})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo()).save(tmp_path / "images/a.jpg", exif=exif)
    image, target = YoloDataset(images="images", root=str(tmp_path), class_names=NAMES)[0]
    assert image.shape == (3, 40, 30)
    assert target["boxes"].tolist() == [[0, 0, 30, 20]]


def settle(root: Path) -> None:
    """Date all files a minute back, as files are that nobody is writing."""
    for path in root.rglob("*"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 60 * 10**9))


def test_what_was_parsed_is_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, {"images/a.png": "1 .5 .5 .5 .2", "images/b.png": None})
    arguments: dict[str, Any] = {"images": "images", "root": str(tmp_path), "class_names": NAMES}
    settle(tmp_path)
    first = YoloDataset(**arguments)[0][1]
    assert len(list((tmp_path / ".detlit").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr("detlit.data.datasets.yolo.read_labels", lambda *_, **__: pytest.fail("parsed again"))
        again = YoloDataset(**arguments)[0][1]
        assert torch.equal(first["boxes"], again["boxes"])
        data = YoloDataset(**arguments, classes=["dog"])  # the cache knows nothing of options
        assert data[0][1]["labels"].tolist() == [0]
    status = (tmp_path / "labels/a.txt").stat()
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 .5 .2")  # the same size
    os.utime(tmp_path / "labels/a.txt", ns=(0, status.st_mtime_ns + 1))
    assert YoloDataset(**arguments)[0][1]["labels"].tolist() == [0]
    (tmp_path / "labels/b.txt").write_text("1 .5 .5 .5 .2")
    os.utime(tmp_path / "labels/b.txt", ns=(0, status.st_mtime_ns))
    assert YoloDataset(**arguments)[1][1]["labels"].tolist() == [1]
    (tmp_path / "labels/b.txt").unlink()
    assert YoloDataset(**arguments)[1][1]["labels"].tolist() == []
    assert len(list((tmp_path / ".detlit").iterdir())) == 1  # older ones are removed


def test_clean_data_say_nothing(tmp_path: Path) -> None:
    put(tmp_path, {"images/a.png": "1 .5 .5 .5 .2"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        YoloDataset(images="images", root=str(tmp_path), class_names=NAMES).setup()
