"""Anyone's list of (image or path, boxes, labels)."""

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detlit.data import ConcatDataset, DetectionDataModule, ListDataset
from detlit.errors import AnnotationError, CheckpointError, ConfigurationError, DatasetError, ImageReadError
from detlit.spec import spec_of
from tests.data.datasets.test_yolo import NAMES, photo


def targets(data: ListDataset) -> list[tuple[list[list[float]], list[int]]]:
    return [(data[i][1]["boxes"].tolist(), data[i][1]["labels"].tolist()) for i in range(len(data))]


BOX = ([[10, 12, 30, 18]], [1])


@pytest.mark.parametrize(
    ("box", "arguments"),
    [
        ([10, 12, 30, 18], {}),
        ([10, 12, 20, 6], {"box_format": "xywh"}),
        ([20, 15, 20, 6], {"box_format": "cxcywh"}),
        ([0.25, 0.4, 0.75, 0.6], {"normalized": True}),
        ([0.25, 0.4, 0.5, 0.2], {"box_format": "xywh", "normalized": True}),
        ([0.5, 0.5, 0.5, 0.2], {"box_format": "cxcywh", "normalized": True}),
    ],
)
def test_every_box_format(box: list[float], arguments: dict[str, Any]) -> None:
    found = targets(ListDataset([(photo(), [box], ["dog"])], NAMES, **arguments))
    np.testing.assert_allclose(found[0][0], BOX[0], atol=1e-5)


def test_images_are_paths_or_arrays_and_labels_names_or_numbers(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photo()[..., ::-1])
    box = [[10, 12, 30, 18]]
    samples: list[Any] = [("a.png", box, ["dog"]), (photo(), np.array(box), np.array([1])), (photo()[..., 0], [], [])]
    data = ListDataset(samples, NAMES, root=str(tmp_path))
    assert targets(data) == [BOX, BOX, ([], [])]
    np.testing.assert_array_equal(data.load_image(0), photo())
    np.testing.assert_array_equal(data.load_image(1), photo())
    np.testing.assert_array_equal(data.load_image(2), np.repeat(photo()[..., :1], 3, axis=2))
    assert [data.image_path(i) for i in range(3)] == [tmp_path / "a.png", None, None]
    assert [data.image_size(i) for i in range(3)] == [(30, 40)] * 3
    assert [data[i][1]["path"] for i in range(3)] == [str(tmp_path / "a.png"), "samples[1]", "samples[2]"]
    copied = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copied.load_image(0), photo())


def test_shared_options_keep_images_and_boxes_together() -> None:
    box = [[10, 12, 30, 18]]
    samples: list[Any] = [(photo(), [], []), (photo() // 2, box, ["dog"]), (photo() // 3, box, ["dog"])]
    data = ListDataset(samples, NAMES, classes=["dog"], ignore_empty=True, max_samples=1)
    assert targets(data) == [([[10, 12, 30, 18]], [0])]
    np.testing.assert_array_equal(data.load_image(0), photo() // 2)
    assert (data[0][1]["image_id"], data[0][1]["dataset_index"]) == (1, 0)


@pytest.mark.parametrize(
    ("boxes", "labels", "message"),
    [
        ([[1, 2, 3]], [0], r"has boxes \(1, 3\): they must be \(N, 4\), xyxy"),
        ([[1, 2, 3, 4], [1]], [0], "has boxes that are not four numbers each"),
        ([[1, 2, 3, float("nan")]], [0], "has a box that is NaN"),
        ([[1, 2, 3, 4]], [], "has 1 boxes but 0 labels"),
        ([[1, 2, 3, 4]], ["cow"], "has label 'cow', but the 2 classes are cat, dog: write one of these, or"),
        ([[1, 2, 3, 4]], ["1"], "has label '1', but the 2 classes are cat, dog: .* or its number from 0 to 1"),
        ([[1, 2, 3, 4]], [2], "has label 2, but"),
        ([[1, 2, 3, 4]], [-1], "has label -1, but"),
        ([[1, 2, 3, 4]], [0.5], r"has label 0\.5, but"),
        ([[1, 2, 3, 4]], [float("nan")], "has label nan, but"),
        ([[1, 2, 3, 4]], [None], "has label None, but"),
        ([[1, 2, 3, 4]], [[1]], r"has label \[1\], but"),
        ([[1, 2, 3, 4]], 1, "has labels 1: write a list, one label per box"),
        ([[1, 2, 3, 4]], np.array(1), r"has labels array\(1\): write a list"),
        ([[1, 2, 3, 4]], None, "has labels None: write a list"),
        ([[1, 2, 3, 4]], "dog", "has labels 'dog': write a list"),
        (None, [1], r"has boxes \(\): they must be"),
        (["1 2 3 4"], [1], "has boxes that are not four numbers each"),
    ],
)
def test_samples_that_cannot_be_understood(boxes: Any, labels: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=r"^samples\[1\] " + message):
        ListDataset([(photo(), [], []), (photo(), boxes, labels)], NAMES)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ((None, [], []), r"samples\[1\] has None for an image: give a path or an array \(H, W, 3\), RGB"),
        ((7, [], []), r"samples\[1\] has 7 for an image"),
        ((photo(), []), r"samples\[1\] is not \(image, boxes, labels\): give all three"),
        (None, r"samples\[1\] is not \(image, boxes, labels\)"),
        (("a.png", [[1, 2, 3, 4]], [2]), r"samples\[1\] \(a\.png\) has label 2, but"),
    ],
)
def test_samples_without_an_image_and_those_of_a_file(sample: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match="^" + message):
        ListDataset([(photo(), [], []), sample], NAMES)


def test_bad_arguments_and_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="samples is empty"):
        ListDataset([], NAMES)
    with pytest.raises(ConfigurationError, match="box_format='ltrb' is unknown: choose xyxy, xywh, cxcywh"):
        ListDataset([(photo(), [], [])], NAMES, box_format="ltrb")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"1 of 1 images are missing, the first is .*none\.png"):
        ListDataset([("none.png", [], [])], NAMES, root=str(tmp_path)).setup()
    with pytest.raises(ImageReadError, match=r"there is no image .*none\.png"):
        ListDataset([("none.png", [], [])], NAMES, normalized=True, root=str(tmp_path))
    with pytest.raises(ImageReadError, match=r"samples\[0\] is an array \(30, 40, 2\)"):
        ListDataset([(photo()[..., :2], [], [])], NAMES).load_image(0)


def test_boxes_that_may_be_xywh_are_told_of_once() -> None:
    samples: list[Any] = [(photo(), [[20, 12, 5, 18], [1, 1, 1, 9]], ["dog", "cat"])]
    told = r"the list of samples has 2 boxes without area .*; 1 of them end before they begin: .* may be xywh"
    for data in (ListDataset(samples, NAMES), ConcatDataset([ListDataset(samples, NAMES)])):
        with pytest.warns(UserWarning, match=told) as caught:
            data[0]
        assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"without area in the image, left out of training but evaluated \([^;]*\)\.$"):
        ListDataset([(photo(), [[20, 12, -5, 18]], ["dog"])], NAMES, box_format="xywh").setup()


def test_checkpoints_do_not_hold_the_samples() -> None:
    with pytest.raises(CheckpointError, match=r"ListDataset\.samples holds a .*, which cannot be described"):
        spec_of(ListDataset([("a.png", [], [])], NAMES))


def test_it_trains_through_the_data_module() -> None:
    samples: list[Any] = [(photo(), [[10, 12, 30, 18]], ["dog"])] * 4
    data = DetectionDataModule(train=ListDataset(samples, NAMES), image_size=64, batch_size=2, num_workers=0)
    assert data.class_names == ("cat", "dog")
    (batch, *_) = data.train_dataloader()
    assert tuple(batch.images.shape) == (2, 3, 64, 64)
