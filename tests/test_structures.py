"""Batches that survive workers, devices and precisions, and the one preprocessing rule."""

import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from lightning.pytorch.utilities import move_data_to_device

from detlit.errors import ConfigurationError
from detlit.structures import Batch, Preprocessing


def make_batch() -> Batch:
    """Three images with 2, 0 and 1 objects; the last image also has a crowd among its original objects."""
    return Batch(
        images=torch.zeros(3, 3, 32, 64, dtype=torch.uint8),
        boxes=torch.tensor([[1.1, 2.2, 3.3, 4.4], [5.0, 6.0, 7.0, 8.0], [0.0, 0.0, 9.0, 9.0]]),
        labels=torch.tensor([4, 257, 0]),
        iscrowd=torch.tensor([False, False, False]),
        image_index=torch.tensor([0, 0, 2]),
        counts=[2, 0, 1],
        image_ids=[10, 11, 12],
        dataset_indices=[0, 1, 2],
        orig_sizes=[(32, 64), (16, 32), (64, 64)],
        geometry=torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 3, dtype=torch.float64),
        orig_objects=torch.tensor(
            [[0, 4, 0, 9.0, 1, 2, 3, 4], [2, 0, 0, 81.0, 0, 0, 9, 9], [2, 0, 1, 5.0, 1, 1, 9, 9]], dtype=torch.float64
        ),
        paths=["a.jpg", "b.jpg", "c.jpg"],
    )


def test_targets_are_views_of_each_image() -> None:
    first, empty, last = make_batch().targets
    assert first["labels"].tolist() == [4, 257]
    assert empty["boxes"].shape == (0, 4)
    assert empty["orig_boxes"].shape == (0, 4)
    assert last["orig_iscrowd"].tolist() == [False, True]
    assert last["orig_area"].tolist() == [81.0, 5.0]
    assert (last["image_id"], last["dataset_index"], last["orig_size"], last["path"]) == (12, 2, (64, 64), "c.jpg")


def test_reduced_precision_leaves_boxes_and_labels_alone() -> None:
    batch = HalfPrecision("bf16-true").convert_input(make_batch())
    assert batch.boxes.dtype is torch.float32
    assert batch.labels.tolist() == [4, 257, 0]
    assert batch.geometry.dtype is torch.float64


def test_lightning_moves_what_the_device_needs() -> None:
    moved = move_data_to_device(make_batch(), torch.device("meta"))
    assert {moved.images.device.type, moved.boxes.device.type, moved.image_index.device.type} == {"meta"}
    assert moved.geometry.device.type == moved.orig_objects.device.type == "cpu"


def test_the_host_keeps_the_objects_of_a_batch_on_a_device() -> None:
    """A meta tensor has no values that could be copied back: what the host reads is the original."""
    batch = make_batch()
    assert batch.host_objects[0] is batch.boxes
    for moved in (batch.to("meta"), batch.to("meta").to("meta")):
        assert [ours is theirs for ours, theirs in zip(moved.host_objects, batch.host_objects, strict=True)] == [
            True
        ] * 3


def test_objects_changed_on_the_device_are_not_mistaken_for_the_originals() -> None:
    replaced, written = make_batch().to("meta"), make_batch().to("meta")
    replaced.boxes = replaced.boxes * 2
    written.labels += 1
    for batch in (replaced, written):
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            batch.host_objects  # noqa: B018


def test_letterbox_geometry_centres_and_rounds_once() -> None:
    preprocessing = Preprocessing(size=(640, 640), content_size=(636, 636))
    assert preprocessing.content_shape(480, 640) == (477, 636)
    assert preprocessing.geometry(480, 640) == (636 / 640, 477 / 480, 2.0, 81.0)
    assert Preprocessing(size=(32, 64), anchor="top_left").geometry(10, 10)[2:] == (0.0, 0.0)
    assert Preprocessing(size=(64, 64), keep_ratio=False).geometry(32, 128) == (0.5, 2.0, 0.0, 0.0)
    assert Preprocessing(size=(32, 32)).content_shape(1000, 1) == (32, 1)


def test_preprocessing_survives_plain_data() -> None:
    preprocessing = Preprocessing(size=(320, 640), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), channel_order="BGR")
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (250, 640)}, "250x640 .* the nearest to 250 is 256"),
        ({"size": (0, 32)}, "positive multiples of 32"),
        ({"size": (320, 320), "content_size": (321, 320)}, "321x320 does not fit into the image size 320x320"),
        ({"anchor": "middle"}, "anchor='middle'"),
        ({"size": 640}, r"size=\[640\] is no image size: give height and width"),
        ({"content_size": (64, 64, 3)}, r"content_size=\[64, 64, 3\] is no image size"),
        ({"pad_value": 256}, "pad_value=256 is no grey level: choose 0 to 255"),
        ({"std": (0.2, 0.0, 0.2)}, r"std=\[0\.2, 0\.0, 0\.2\] cannot be divided by"),
        ({"mean": (0.5,), "std": (0.2, 0.2, 0.2)}, "are of different channels"),
    ],
)
def test_impossible_preprocessing_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Preprocessing(**arguments)


def test_entries_of_a_newer_version_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown entries \['gamma'\]"):
        Preprocessing.from_dict({"size": [32, 32], "gamma": 2})
