"""One line of a YOLO label file, and data.yaml."""

from pathlib import Path

import pytest

from detlit.data.datasets.yolo_file import label_path, parse_line, read_data_yaml, read_labels, read_list
from detlit.errors import AnnotationError, DatasetError


def test_five_numbers_are_a_box() -> None:
    assert parse_line("3 0.5 0.25 0.5 0.25") == (3, (0.25, 0.125, 0.75, 0.375))
    assert parse_line(" 2.0\t0.5 0.5 -0.5 0 \r\n") == (2, (0.75, 0.5, 0.25, 0.5))


def test_a_polygon_becomes_the_box_around_it() -> None:
    assert parse_line("1 0.1 0.9 0.5 0.2 0.3 0.4") == (1, (0.1, 0.2, 0.5, 0.9))
    assert parse_line("0 0.1 0.1 0.9 0.1 0.9 0.8 0.1 0.8") == (0, (0.1, 0.1, 0.9, 0.8))


def test_a_sixth_number_is_read_on_demand_only() -> None:
    with pytest.raises(
        AnnotationError, match=r"'0 \.5 \.5 \.5 \.5 \.9' has 6 columns: a sixth, a detector's confidence"
    ):
        parse_line("0 .5 .5 .5 .5 .9")
    assert parse_line("0 .5 .5 .5 .5 .9", confidence=True) == (0, (0.25, 0.25, 0.75, 0.75))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "has 4 columns: write class, centre x"),
        ("0", "has 1 columns"),
        ("0 .1 .2 .3 .4 .5 .6 .7", "has 8 columns"),
        ("cat 0.5 0.5 0.5 0.5", "'cat 0.5 0.5 0.5 0.5' holds something that is no number"),
        ("0 0.5 0,5 0.5 0.5", "holds something that is no number"),
        ("0 0.5 nan 0.5 0.5", "holds a number that is not finite"),
        ("0 0.5 inf 0.5 0.5", "holds a number that is not finite"),
        ("-1 0.5 0.5 0.5 0.5", r"has class -1: classes count 0, 1, 2"),
        ("1.5 0.5 0.5 0.5 0.5", r"has class 1\.5"),
        ("nan 0.5 0.5 0.5 0.5", r"has class nan"),
        ("inf 0.5 0.5 0.5 0.5", r"has class inf"),
        ("0 " + "0.123456 " * 40 + "x", r"\.\.\.' has 42 columns"),
    ],
)
def test_lines_that_cannot_be_understood(line: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as caught:
        parse_line(line)
    assert "\n" not in str(caught.value)


def test_a_file_may_be_empty_and_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n  \n")
    assert read_labels(path) == []
    path.write_text("0 .5 .5 .1 .1\n\n1 320 240 50 60\n")
    with pytest.raises(AnnotationError, match=r"a\.txt line 3: '1 320 240 50 60' reaches far beyond .* not pixels"):
        read_labels(path)
    path.write_bytes(b"0 .5 .5 .1 .1\n\xff\xfe\n")
    with pytest.raises(AnnotationError, match=r"a\.txt line 2: .* has 1 columns"):
        read_labels(path)
    with pytest.raises(DatasetError, match=r"there is no file .*none\.txt"):
        read_labels(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("images/train/1.jpg", "labels/train/1.txt"),
        ("train/images/1.tar.jpg", "train/labels/1.tar.txt"),
        ("/a/images/b/images/1.png", "/a/images/b/labels/1.txt"),
        ("photos/1.jpg", "photos/1.txt"),
        ("my_images/1.jpg", "my_images/1.txt"),
    ],
)
def test_where_labels_are(image: str, labels: str) -> None:
    assert label_path(image) == labels


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_data_yaml_of_ultralytics(tmp_path: Path) -> None:
    text = "path: set\ntrain: images/train\nval: [images/val, more.txt]\ntest:\nnames:\n  0: cat\n  1: dog\n"
    content = read_data_yaml(write(tmp_path / "a.yaml", text))
    assert content.class_names == ("cat", "dog")
    assert content.splits == {
        "train": (tmp_path / "set/images/train",),
        "val": (tmp_path / "set/images/val", tmp_path / "set/more.txt"),
    }


def test_data_yaml_of_roboflow(tmp_path: Path) -> None:
    (tmp_path / "train/images").mkdir(parents=True)
    text = "train: ../train/images\nvalid: ../valid/images\nnc: 2\nnames: ['cat', 7]\n"
    content = read_data_yaml(write(tmp_path / "data.yaml", text))
    assert content.class_names == ("cat", "7")
    assert content.splits["train"] == (tmp_path / "train/images",)
    assert content.splits["val"] == (tmp_path / "../valid/images",)  # absent: as written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a", "is not valid yaml"),
        ("- a", "holds no settings"),
        ("nc: 3", "has no class names: add"),
        ("names: []", "has no class names"),
        ("nc: 3\nnames: [a, b]", "says nc: 3, but names 2 classes"),
        ("names: [a, a]", "names two classes 'a'"),
        ("names: {0: a, 2: b}", "names the classes 0, 2: give each of 0, 1, 2"),
        ("names: {a: b}", "names the classes a"),
    ],
)
def test_data_yaml_that_cannot_be_understood(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as caught:
        read_data_yaml(write(tmp_path / "data.yaml", text))
    assert "data.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_start_from_their_folder_or_one_above(tmp_path: Path) -> None:
    write(tmp_path / "images/1.jpg", "")
    for path in ("train.txt", "lists/train.txt"):
        names = read_list(write(tmp_path / path, "./images/1.jpg\n\nimages/2.jpg \n"))
        assert names == [str(tmp_path / "images/1.jpg"), str(tmp_path / "images/2.jpg")]
