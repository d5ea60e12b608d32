"""Samples to a flat batch and back."""

import numpy as np
import pytest
import torch
from torch import Tensor

from detlit.data import ShapesDataset, collate
from detlit.errors import AnnotationError, ConfigurationError
from detlit.structures import Target


def sample(counts: int, **extra: object) -> tuple[Tensor, Target]:
    corners = torch.rand(counts, 2) * 10
    target = {"boxes": torch.cat([corners, corners + 5], dim=1), "labels": torch.arange(counts), **extra}
    return torch.full((3, 32, 64), counts, dtype=torch.uint8), target  # type: ignore[return-value]


@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 0], [1]], ids=["mixed", "all-empty", "one"])
def test_targets_come_back_as_they_went_in(counts: list[int]) -> None:
    samples = [sample(count) for count in counts]
    batch = collate(samples)
    assert (len(batch), tuple(batch.images.shape), batch.images.dtype) == (
        len(counts),
        (len(counts), 3, 32, 64),
        torch.uint8,
    )
    assert batch.image_index.tolist() == [i for i, count in enumerate(counts) for _ in range(count)]
    assert batch.counts == counts
    for (image, target), (given_image, given) in zip(
        zip(batch.images, batch.targets, strict=True), samples, strict=True
    ):
        torch.testing.assert_close(image, given_image)
        torch.testing.assert_close(target["boxes"], given["boxes"])
        torch.testing.assert_close(target["labels"], given["labels"])
        assert target["iscrowd"].tolist() == [False] * len(given["labels"])
        assert target["geometry"].tolist() == [1, 1, 0, 0]
        assert (target["image_id"], target["dataset_index"], target["orig_size"]) == (-1, -1, (32, 64))
    assert batch.orig_objects is None


def test_originals_keep_their_precision_and_place() -> None:
    data = ShapesDataset(8)
    samples = [data[index] for index in range(8)]
    samples[3][1]["orig_boxes"] = torch.tensor([[1 / 3, 0.1, 5, 7]], dtype=torch.float64)
    samples[3][1].update(orig_labels=torch.tensor([4]), orig_iscrowd=torch.tensor([True]))
    samples[3][1]["orig_area"] = torch.tensor([2 / 7], dtype=torch.float64)
    batch = collate(samples)
    assert batch.orig_objects is not None
    assert batch.orig_objects.dtype == torch.float64
    rows = batch.orig_objects[batch.orig_objects[:, 0] == 3]
    assert rows.tolist() == [[3, 4, 1, 2 / 7, 1 / 3, 0.1, 5, 7]]
    for target, (_, given) in zip(batch.targets, samples, strict=True):
        torch.testing.assert_close(target["orig_boxes"], given["orig_boxes"], rtol=0, atol=0)
        assert target["path"] == given["path"]
    assert batch.dataset_indices == list(range(8))


def test_at_most_twelve_tensors_cross_the_worker_boundary() -> None:
    batch = collate([ShapesDataset(4)[index] for index in range(4)])
    assert sum(isinstance(value, Tensor) for value in vars(batch).values()) <= 12
    assert not any(
        isinstance(item, Tensor) for value in vars(batch).values() if isinstance(value, list) for item in value
    )


def test_boxes_are_float32_whatever_the_data_set_gives() -> None:
    batch = collate([sample(0, boxes=torch.tensor([[0.0, 0, 5, 5]], dtype=torch.float64), labels=torch.tensor([1]))])
    assert (batch.boxes.dtype, batch.labels.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_box_that_is_no_number_is_refused(value: float) -> None:
    bad = sample(0, boxes=torch.tensor([[0, 0, value, 5]]), labels=torch.tensor([1]), path="b.png")
    with pytest.raises(
        AnnotationError, match=r"image b\.png has the box \[.*(nan|inf).*\], which is not finite: correct"
    ):
        collate([sample(2), bad])


def test_boxes_that_look_normalised_are_refused() -> None:
    boxes = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 1.0, 1.0]])
    samples = [sample(0), sample(0, boxes=boxes, labels=torch.tensor([0, 1]), path="c.png")]
    message = r"^image c\.png of 64x32 pixels has the box \[0\.25, 0\.5, .*normalised, multiply them by the width"
    with pytest.raises(AnnotationError, match=message):
        collate(samples)
    # What augmentation leaves of an object may be that small: one alone, or beside larger ones.
    assert collate([sample(0, boxes=boxes[:1], labels=torch.tensor([0]))]).counts == [1]
    assert collate([*samples, sample(1, boxes=torch.tensor([[0.0, 0.0, 9.0, 9.0]]))]).counts == [0, 2, 1]


def test_labels_and_boxes_must_pair() -> None:
    with pytest.raises(AnnotationError, match="image number 1 of the batch has 1 labels for 2 boxes"):
        collate([sample(1), sample(2, labels=torch.tensor([1]))])


def test_images_of_different_sizes_are_refused() -> None:
    data = [ShapesDataset(1, image_size=size)[0] for size in (64, (96, 128))]
    with pytest.raises(ConfigurationError, match=r"differ in size \(128x96, 64x64\): set the data set's transform"):
        collate(data)
