"""Ground truth of a batch as flat tensors, checked where that costs no device sync."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detlit.errors import AnnotationError, ConfigurationError
from detlit.structures import Batch, Target

__all__ = ["GroundTruth", "collect_ground_truth"]


class GroundTruth(NamedTuple):
    """Objects of a batch, image after image.

    Attributes:
        boxes: ``(M, 4)`` xyxy pixels of the network input.
        labels: ``(M,)`` int64.
        iscrowd: ``(M,)`` bool. Crowd boxes stay in place, because dropping them would make a GPU tell the host how many
            there are; assigners leave them out.
        counts: objects of each image, on the host.
    """

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    counts: list[int]

    def images(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return ``boxes (N, 4)``, ``labels (N,)`` and ``iscrowd (N,)`` of each image, as views."""
        columns = (self.boxes, self.labels, self.iscrowd)
        return list(zip(*(torch.split(column, self.counts) for column in columns), strict=True))


def collect_ground_truth(batch: Batch | Sequence[Target], num_classes: int, like: Tensor) -> GroundTruth:
    """Return the objects of a batch, or of one target per image, on the device and in the dtype of ``like``.

    Targets that are still on the CPU are checked; on a GPU that would stall the step, and the collate function of
    :mod:`detlit.data` has checked them before.

    Raises:
        ConfigurationError: not one target for each image of ``like (B, ...)``.
        AnnotationError: labels outside ``0..num_classes - 1``, or boxes that are not finite.
    """
    if len(batch) != len(like):
        raise ConfigurationError(
            f"{len(batch)} targets came with predictions for {len(like)} images: give one target per image, "
            "with empty boxes for an image without objects."
        )
    if isinstance(batch, Batch):
        truth = GroundTruth(batch.boxes, batch.labels, batch.iscrowd, batch.counts)
        image_ids: Sequence[Any] = batch.image_ids
    else:
        truth = _concatenate(batch)
        image_ids = [target.get("image_id", f"number {i} of the batch") for i, target in enumerate(batch)]
    _check(truth, num_classes, image_ids)
    return GroundTruth(
        boxes=truth.boxes.to(like, non_blocking=True),
        labels=truth.labels.to(like.device, non_blocking=True),
        iscrowd=truth.iscrowd.to(like.device, non_blocking=True),
        counts=truth.counts,
    )


def _concatenate(targets: Sequence[Target]) -> GroundTruth:
    boxes = [target["boxes"].reshape(-1, 4) for target in targets]
    labels = [target["labels"].reshape(-1).long() for target in targets]
    for i, target in enumerate(targets):
        if len(boxes[i]) != len(labels[i]):
            raise AnnotationError(
                f"image {target.get('image_id', i)} has {len(boxes[i])} boxes and {len(labels[i])} labels: "
                "give each box one label."
            )
    iscrowd = [
        target["iscrowd"].reshape(-1).bool() if "iscrowd" in target else torch.zeros_like(label, dtype=torch.bool)
        for target, label in zip(targets, labels, strict=True)
    ]
    return GroundTruth(torch.cat(boxes), torch.cat(labels), torch.cat(iscrowd), list(map(len, boxes)))


def _check(truth: GroundTruth, num_classes: int, image_ids: Sequence[Any]) -> None:
    """Refuse what would otherwise end in an index error or a NaN loss, naming the image."""
    if truth.labels.device.type == "cpu":
        bad_label = (truth.labels < 0) | (truth.labels >= num_classes)
        if bad_label.any():
            row = int(bad_label.nonzero()[0, 0])
            raise AnnotationError(
                f"image {image_ids[_image_of(row, truth.counts)]} has an object with label {int(truth.labels[row])}, "
                f"outside 0..{num_classes - 1}: number the classes contiguously from 0, or build the detector with "
                "more classes."
            )
    if truth.boxes.device.type == "cpu":
        bad_box = ~truth.boxes.isfinite().all(-1)
        if bad_box.any():
            row = int(bad_box.nonzero()[0, 0])
            raise AnnotationError(
                f"image {image_ids[_image_of(row, truth.counts)]} has the box {truth.boxes[row].tolist()}, which is "
                "not finite: correct or remove the annotation."
            )


def _image_of(row: int, counts: Sequence[int]) -> int:
    """Return the position in the batch of the image that flat row ``row`` belongs to."""
    return bisect_right(list(accumulate(counts)), row)
