"""Pascal VOC data sets: layouts, and what is said about bad ones."""

from pathlib import Path
from typing import Any

import cv2
import pytest

from detlit.data import VocDataset
from detlit.data.datasets.voc_file import read_voc_file
from detlit.errors import AnnotationError, ConfigurationError, DatasetError, ImageReadError
from tests.data.datasets.test_yolo import photo, settle

CAT = "<object><name>cat</name><bndbox><xmin>5</xmin><ymin>6.5</ymin><xmax>15</xmax><ymax>20</ymax></bndbox></object>"
SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"
HARD_DOG = CAT.replace("<name>cat</name>", "<name>dog</name><difficult>1</difficult>")


def xml(*parts: str) -> str:
    return f"<annotation><filename>whatever.jpg</filename>{''.join(parts)}</annotation>"


def put(root: Path, files: dict[str, str | None], folders: tuple[str, str] = ("Annotations", "JPEGImages")) -> Path:
    """Write an image of 40x30 pixels and an xml file for each name; ``None`` writes no xml file."""
    annotations, images = (root / folder for folder in folders)
    for folder in (annotations, images):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        cv2.imwrite(str(images / name), photo())
        if content is not None:
            (annotations / name).with_suffix(".xml").write_text(content)
    return root


def read(root: Path, **arguments: Any) -> list[tuple[str, list[list[float]], list[int], list[bool]]]:
    data = VocDataset(root=str(root), **arguments)
    targets = [data[i][1] for i in range(len(data))]
    return [(Path(t["path"]).name, t["boxes"].tolist(), t["labels"].tolist(), t["iscrowd"].tolist()) for t in targets]


BOX = [5, 6.5, 15, 20]


def test_boxes_classes_background_and_difficult(tmp_path: Path) -> None:
    root = put(tmp_path, {"b.png": xml(SIZE, HARD_DOG, CAT), "a.jpg": xml(SIZE), "c.png": None})
    assert VocDataset(root=str(root)).class_names == ("cat", "dog")
    empty: list[Any] = [("a.jpg", [], [], []), ("c.png", [], [], [])]
    crowd = ("b.png", [BOX, BOX], [1, 0], [True, False])
    assert read(root) == [empty[0], crowd, empty[1]]
    assert read(root, ignore_empty=True, difficult="ignore") == [crowd]
    assert read(root, ignore_empty=True, difficult="keep") == [("b.png", [BOX, BOX], [1, 0], [False, False])]
    assert read(root, ignore_empty=True, difficult="drop") == [("b.png", [BOX], [0], [False])]
    assert read(root, ignore_empty=True, class_names=["dog", "cow", "cat"])[0][2] == [0, 2]
    assert read(root, ignore_empty=True, classes={"dog": "pet"})[0][1:3] == ([BOX], [0])
    assert read(root, max_samples=1) == [empty[0]]
    with pytest.raises(ConfigurationError, match="difficult='hard' is unknown: choose 'ignore', 'keep' or 'drop'"):
        VocDataset(difficult="hard")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="Annotations annotates class 'dog', but the classes of this run are cat"):
        read(root, class_names=["cat"])


def test_pixels_counted_from_one(tmp_path: Path) -> None:
    root = put(tmp_path, {"a.png": xml(SIZE, CAT)})
    data = VocDataset(root=str(root), one_based=True)
    assert data[0][1]["boxes"].tolist() == [[4, 5.5, 15, 20]]
    assert data[0][1]["orig_area"].tolist() == [11 * 14.5]


def test_splits(tmp_path: Path) -> None:
    root = put(tmp_path, {"a b.png": xml(CAT), "c.png": xml(HARD_DOG), "d.png": None})
    lists = root / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("c\na b\n\n")
    (lists / "cat_val.txt").write_text("d  -1\nc   1\n")
    (root / "other.txt").write_text("d\nlost\n")
    assert [row[0] for row in read(root, split="train")] == ["c.png", "a b.png"]
    assert [row[0] for row in read(root, split="cat_val")] == ["d.png", "c.png"]
    assert [row[0] for row in read(root)] == ["a b.png", "c.png", "d.png"]
    with pytest.raises(DatasetError, match=r"1 of 2 images of .*\(other\.txt\) are missing in .*, the first is lost"):
        read(root, split="other.txt")
    with pytest.raises(DatasetError, match=r"there is no file .*ImageSets/Main/test\.txt"):
        read(root, split="test")


def test_xml_files_may_be_beside_the_images_and_in_folders(tmp_path: Path) -> None:
    root = put(tmp_path, {"a.png": xml(CAT)}, ("train/x", "train/x"))
    assert read(root, annotations="train", images="train") == [("a.png", [BOX], [0], [False])]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no folder .*Annotations"):
        read(tmp_path)
    put(tmp_path, {})
    with pytest.raises(DatasetError, match="Annotations has no images: check the folders and the split"):
        read(tmp_path)
    put(tmp_path, {"a.png": None})
    with pytest.raises(DatasetError, match=r"none of the 1 images in .*JPEGImages has an xml file in .*Annotations"):
        read(tmp_path)
    (tmp_path / "Annotations/b.xml").write_text(xml())
    with pytest.raises(DatasetError, match=r"1 of 2 images of .* are missing in .*JPEGImages, the first is b: check"):
        read(tmp_path)
    put(tmp_path, {"b.png": None, "b.jpg": None})
    with pytest.raises(DatasetError, match=r"b\.jpg has the name of another file but for its suffix"):
        read(tmp_path)


def test_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    data = VocDataset(root=str(put(tmp_path, {"a.png": xml(SIZE.replace("40", "50"), CAT)})))
    with pytest.raises(ImageReadError, match=r"a\.png has 40x30 pixels, but its annotations say 50x30"):
        data.load_image(0)
    with pytest.raises(ImageReadError, match=r"a\.png has 40x30 pixels, but its annotations say 50x30"):
        data.image_size(0)


def test_degenerate_boxes_are_evaluated_but_not_trained_on(tmp_path: Path) -> None:
    flat, outside = CAT.replace(">15<", ">5<"), CAT.replace(">5<", ">50<").replace(">15<", ">60<")
    inverted = CAT.replace(">15<", ">1<")
    data = VocDataset(root=str(put(tmp_path, {"a.png": xml(SIZE, flat, outside, inverted, CAT)})))
    with pytest.warns(UserWarning, match=r"3 boxes without area .* \(object 1 of a\.png, 2 of a\.png, 3 of a\.png\)"):
        data.setup()
    assert data[0][1]["boxes"].tolist() == [BOX]
    assert data[0][1]["orig_boxes"].tolist() == [[5, 6.5, 5, 20], [50, 6.5, 60, 20], [5, 6.5, 1, 20], BOX]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not valid xml"),
        ("<annotation>", "is not valid xml"),
        ("<html/>", "is no VOC file: its root is <html>, not <annotation>"),
        (xml(CAT, CAT.replace("<name>cat</name>", "")), "object 2 has no <name>"),
        (xml(CAT.replace("cat", " ")), "object 1 has no <name>"),
        (xml("<object><name>a</name></object>"), "object 1 has the box nothing, nothing, nothing, nothing: write four"),
        (xml(CAT.replace("<xmin>5</xmin>", "")), r"object 1 has the box nothing, 6\.5, 15, 20"),
        (xml(CAT.replace(">5<", ">five<")), "object 1 has the box five, "),
        (xml(CAT.replace(">5<", ">nan<")), "object 1 has the box nan, "),
        (xml(CAT.replace(">5<", ">inf<")), "object 1 has the box inf, "),
        (xml(SIZE.replace("40", "-40")), "has height 30 and width -40: write positive integers"),
        (xml(SIZE.replace("40", "wide")), "has height 30 and width wide"),
    ],
)
def test_files_that_cannot_be_understood(tmp_path: Path, content: str, message: str) -> None:
    root = put(tmp_path, {"a.png": content})
    with pytest.raises(AnnotationError, match=message) as caught:
        VocDataset(root=str(root)).setup()
    assert str(root / "Annotations/a.xml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["", "<size/>", SIZE.replace("40", "0"), "<size><width>40</width></size>"])
def test_sizes_may_be_missing(tmp_path: Path, size: str) -> None:
    assert read(put(tmp_path, {"a.png": xml(size, CAT)})) == [("a.png", [BOX], [0], [False])]


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"annotation file .*a\.xml cannot be read \(No such file"):
        read_voc_file(tmp_path / "a.xml")


def test_what_was_parsed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put(tmp_path, {"a.png": xml(SIZE, HARD_DOG), "b.png": None})
    settle(tmp_path)
    first = read(root)
    monkeypatch.setattr("detlit.data.datasets.voc.read_voc_file", lambda _: pytest.fail("parsed again"))
    assert read(root) == first
    assert read(root, difficult="keep")[0][3] == [False]
