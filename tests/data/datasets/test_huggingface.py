"""Hugging Face data sets, as objects, from a folder, and from files in a folder."""

import builtins
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detlit.data import HuggingFaceDataset
from detlit.errors import AnnotationError, ConfigurationError, DatasetError, ImageReadError, MissingExtraError
from tests.data.datasets.test_yolo import photo

datasets = pytest.importorskip("datasets")

BOXES = [[[10, 12, 20, 6]], [], [[0, 0, 40, 30], [1, 2, 3, 4]]]
LABELS = [[1], [], [0, 1]]


def png(array: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def rows(layout: str = "object of lists", labels: Any = LABELS, boxes: Any = BOXES, **columns: Any) -> Any:
    """Return three images of 40x30 pixels as a ``datasets.Dataset`` in one of the layouts found on the hub."""
    names = {"box": "bbox", "label": "category"}
    label = datasets.ClassLabel(names=["cat", "dog"]) if labels is LABELS else None
    objects: Any = [{names["box"]: box, names["label"]: label} for box, label in zip(boxes, labels, strict=True)]
    data = {"image": [png(photo())] * 3, "objects": objects}
    if layout == "list of objects":
        data["objects"] = [
            [dict(zip(item, values, strict=True)) for values in zip(*item.values(), strict=True)] for item in objects
        ]
    elif layout == "columns":
        data = {"image": data["image"], "bbox": list(boxes), "category": list(labels)}
    made = datasets.Dataset.from_dict({**data, **columns}).cast_column("image", datasets.Image())
    if label is None:
        return made
    features = made.features.copy()
    if layout == "columns":
        features["category"] = datasets.Sequence(label)
    elif layout == "list of objects":
        features["objects"] = [{"bbox": datasets.Sequence(datasets.Value("float32")), "category": label}]
    else:
        features["objects"] = {
            "bbox": datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
            "category": datasets.Sequence(label),
        }
    return made.cast(features)


def check(data: HuggingFaceDataset) -> None:
    assert (len(data), tuple(data.class_names)) == (3, ("cat", "dog"))
    targets = [data[i][1] for i in range(3)]
    assert [target["boxes"].tolist() for target in targets] == [[[10, 12, 30, 18]], [], [[0, 0, 40, 30], [1, 2, 4, 6]]]
    assert [target["labels"].tolist() for target in targets] == LABELS
    np.testing.assert_array_equal(data.load_image(2), photo())
    assert (data.image_size(1), data.image_path(1)) == ((30, 40), None)


@pytest.mark.parametrize("layout", ["object of lists", "list of objects", "columns"])
def test_layouts(layout: str) -> None:
    columns = {"boxes": "bbox", "labels": "category"} if layout == "columns" else {}
    check(HuggingFaceDataset(rows(layout), **columns))  # type: ignore[arg-type]


def test_a_folder_saved_to_disk_and_one_with_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows().save_to_disk(tmp_path / "saved")
    check(HuggingFaceDataset("saved", root=str(tmp_path)))
    datasets.DatasetDict({"other": rows()}).save_to_disk(tmp_path / "splits")
    check(HuggingFaceDataset(str(tmp_path / "splits"), split="other"))
    with pytest.raises(DatasetError, match="the data set has no split 'train': choose one of other"):
        HuggingFaceDataset(str(tmp_path / "splits")).setup()
    (tmp_path / "files/data").mkdir(parents=True)
    rows().to_parquet(tmp_path / "files/data/test-00000-of-00001.parquet")
    check(HuggingFaceDataset("files", "test", root=str(tmp_path)))
    with pytest.raises(DatasetError, match=r"the data set .*files cannot be loaded"):
        HuggingFaceDataset("files", "nope", root=str(tmp_path)).setup()


def test_a_dict_of_splits() -> None:
    check(HuggingFaceDataset(datasets.DatasetDict({"train": rows(), "test": rows().select([0])})))
    assert len(HuggingFaceDataset(datasets.DatasetDict({"test": rows().select([0])}), "test")) == 1


def test_shuffled_and_filtered_sets_keep_images_and_boxes_together() -> None:
    data = HuggingFaceDataset(rows(image_id=[30, 10, 20]).select([2, 1, 0]), image_id="image_id", ignore_empty=True)
    assert [data[i][1]["image_id"] for i in range(2)] == [20, 30]
    assert data[1][1]["boxes"].tolist() == [[10, 12, 30, 18]]
    named = HuggingFaceDataset(rows(), classes={"dog": "pet"}, max_samples=2)
    assert (tuple(named.class_names), len(named), named[0][1]["labels"].tolist()) == (("pet",), 2, [0])


def test_crowds_areas_and_other_box_formats() -> None:
    extra: dict[str, Any] = {"crowd": [[1], [], [0, 1]], "area": [[7.5], [], [2, 3]]}
    data = HuggingFaceDataset(rows(**extra), iscrowd="crowd", area="area", box_format="cxcywh")
    assert [data[i][1]["iscrowd"].tolist() for i in range(3)] == [[True], [], [False, True]]
    assert [data[i][1]["orig_area"].tolist() for i in range(3)] == [[7.5], [], [2, 3]]
    assert data[0][1]["boxes"].tolist() == [[0, 9, 20, 15]]
    crossed = HuggingFaceDataset(rows(boxes=[[[1, 2, 3, 4]], [], [[1, 2, 3, 4]] * 2]), box_format="xyxy")
    assert crossed[0][1]["boxes"].tolist() == [[1, 2, 3, 4]]
    small = rows(boxes=[[[0.25, 0.4, 0.5, 0.2]], [], [[0, 0, 1, 1], [0, 0, 0.5, 0.5]]])
    data = HuggingFaceDataset(small, normalized=True)
    np.testing.assert_allclose(data[0][1]["boxes"], [[10, 12, 30, 18]], atol=1e-5)


def test_labels_may_be_names_or_numbers_named_by_the_user() -> None:
    words: Any = [["dog"], [], ["cat", "dog"]]
    check(HuggingFaceDataset(rows(labels=words)))
    numbers: Any = [[1], [], [0, 1]]
    check(HuggingFaceDataset(rows(labels=numbers), class_names=["cat", "dog"]))
    with pytest.raises(DatasetError, match=r"labels without names in 'objects\.category': list them in class_names"):
        HuggingFaceDataset(rows(labels=numbers)).setup()
    with pytest.raises(AnnotationError, match=r"\(train\) row 2 has label 'cat', but the 1 classes are dog"):
        HuggingFaceDataset(rows(labels=words), class_names=["dog"]).setup()
    with pytest.raises(AnnotationError, match=r"row 0 has label 1, but the 1 classes are cat"):
        HuggingFaceDataset(rows(labels=numbers), class_names=["cat"]).setup()


def test_images_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(photo()))
    made = datasets.Dataset.from_dict({"image": ["a.png"], "bbox": [[[10, 12, 20, 6]]], "category": [["dog"]]})
    data = HuggingFaceDataset(made, boxes="bbox", labels="category", root=str(tmp_path))
    np.testing.assert_array_equal(data.load_image(0), photo())
    assert (data.image_path(0), data.image_size(0)) == (tmp_path / "a.png", (30, 40))


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({}, {"boxes": "objects.box"}, r"there is no column 'objects\.box': the data set has image, objects; name"),
        ({}, {"image": "picture"}, "there is no column 'picture'"),
        ({"image_id": ["a", "b", "c"]}, {"image_id": "image_id"}, "has the image_id 'a': leave image_id out"),
        (
            {"boxes": [[[1, 2, 3]], [], [[1, 2, 3, 4]] * 2]},
            {},
            r"row 0 has boxes \(1, 3\): they must be \(N, 4\), xywh",
        ),
        ({"boxes": [[[1, 2, 3, 4]], [], [[1, 2, 3, 4]]]}, {}, "row 2 has 1 boxes but 2 labels"),
        ({"boxes": [[[1, 2, 3, np.nan]], [], [[1, 2, 3, 4]] * 2]}, {}, "row 0 has a box that is NaN"),
        ({"crowd": [[1], [1], [0, 1]]}, {"iscrowd": "crowd"}, "row 1 has 1 iscrowd but 0 labels"),
        ({"area": [[1.0], [], [1.0, None]]}, {"area": "area"}, r"row 2 has area \[1\.0, None\]: each label needs"),
        ({"area": [1.0, 2.0, 3.0]}, {"area": "area"}, r"row 0 has area 1\.0: each label needs a value, in a list"),
        ({"labels": [[None], [], ["cat", "dog"]]}, {}, "row 0 has label None, but the 2 classes are cat, dog"),
        ({"label": [1, 0, 1]}, {"labels": "label", "class_names": ["cat", "dog"]}, "row 0 has the label 1: the column"),
        ({"label": ["cat", "b", "c"]}, {"labels": "label"}, "row 0 has the label 'cat': the column 'label' must hold"),
    ],
)
def test_data_that_cannot_be_understood(columns: Any, arguments: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        HuggingFaceDataset(rows(**columns), **arguments).setup()


def test_bad_images_are_named() -> None:
    made = rows().cast_column("image", datasets.Image(decode=False))
    broken = made.map(
        lambda row, i: {"image": {"bytes": [b"oops", None, png(photo())][i], "path": None}}, with_indices=True
    )
    data = HuggingFaceDataset(broken)
    with pytest.raises(ImageReadError, match=r"Dataset \(train\) row 0 cannot be decoded"):
        data.load_image(0)
    with pytest.raises(AnnotationError, match=r"row 1 has no image in 'image': remove it"):
        data.load_image(1)
    np.testing.assert_array_equal(data.load_image(2), photo())


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="box_format='voc' is unknown"):
        HuggingFaceDataset("x", box_format="voc")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"data is a list: give a name, a folder or a datasets\.Dataset"):
        HuggingFaceDataset([1])


def test_it_pickles_to_workers() -> None:
    data = HuggingFaceDataset(rows())
    data.setup()
    check(pickle.loads(pickle.dumps(data)))


def test_without_the_extra_a_sentence_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        MissingExtraError, match=r"HuggingFaceDataset needs datasets, .* pip install 'detlit\[huggingface\]'"
    ):
        HuggingFaceDataset("name").setup()
