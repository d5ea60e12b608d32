"""Ground truth of a batch as flat tensors, with the numbers the host needs to plan a step without asking the device."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.errors import AnnotationError, ConfigurationError
from detlit.structures import Batch, Target

__all__ = ["BatchObjects", "check_boxes", "collect_ground_truth"]


class BatchObjects(NamedTuple):
    """Objects of a batch, image after image.

    Attributes:
        boxes: ``(M, 4)`` xyxy pixels of the network input.
        labels: ``(M,)`` int64.
        iscrowd: ``(M,)`` bool. Crowd boxes stay in place; assigners leave them out.
        counts: objects of each image, on the host.
        host_boxes: ``boxes`` on the host, the same values in float64.
        host_iscrowd: ``iscrowd`` on the host.
    """

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    counts: list[int]
    host_boxes: NDArray[np.float64]
    host_iscrowd: NDArray[np.bool_]

    def images(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return ``boxes (N, 4)``, ``labels (N,)`` and ``iscrowd (N,)`` of each image, as views."""
        columns = (self.boxes, self.labels, self.iscrowd)
        return list(zip(*(torch.split(column, self.counts) for column in columns), strict=True))

    def image_index(self) -> NDArray[np.int64]:
        """Return ``(M,)`` the position in the batch of each object's image, on the host."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def collect_ground_truth(batch: Batch | Sequence[Target], num_classes: int, like: Tensor) -> BatchObjects:
    """Return the objects of a batch, or of one target per image, on the device of ``like``.

    The boxes have the dtype of ``like``, at least float32. A :class:`~detlit.structures.Batch` remembers what it was
    before it went to the device, so reading and checking its objects here does not wait for the device; a list of
    targets on a GPU makes the host wait for each of its three columns.

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
        (boxes, labels, iscrowd), counts = (batch.boxes, batch.labels, batch.iscrowd), batch.counts
        host = batch.host_objects
        paths = batch.paths or [""] * len(batch)
        names = [path or image_id for path, image_id in zip(paths, batch.image_ids, strict=True)]
    else:
        boxes, labels, iscrowd, counts = _concatenate(batch)
        host = (boxes.cpu(), labels.cpu(), iscrowd.cpu())
        names = [target.get("image_id", f"number {i} of the batch") for i, target in enumerate(batch)]
    dtype = torch.promote_types(like.dtype, torch.float32)
    host_boxes = host[0].detach().to(dtype).numpy().astype(np.float64)
    check_boxes(host_boxes, counts, names)
    _check_labels(host[1].numpy(), num_classes, counts, names)
    return BatchObjects(
        boxes=boxes.to(like.device, dtype, non_blocking=True),
        labels=labels.to(like.device, non_blocking=True),
        iscrowd=iscrowd.to(like.device, non_blocking=True),
        counts=counts,
        host_boxes=host_boxes,
        host_iscrowd=host[2].numpy(),
    )


def _concatenate(targets: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
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
    return torch.cat(boxes), torch.cat(labels), torch.cat(iscrowd), list(map(len, boxes))


def check_boxes(
    boxes: NDArray[np.floating[Any]],
    counts: Sequence[int],
    names: Sequence[Any],
    image_size: tuple[int, int] | None = None,
) -> None:
    """Refuse boxes that would end in a NaN loss, or that nothing could be learned from, naming the image.

    Args:
        boxes: ``(M, 4)`` xyxy pixels, images one after another.
        counts: objects of each image.
        names: what to call each image.
        image_size: (height, width) of the network input, to recognise normalised boxes by. One box of at most 1.5
            pixels may be what augmentation left of an object; a batch of nothing else is not.

    Raises:
        AnnotationError: NaN or infinite boxes, or all boxes within a pixel and a half of the top left corner.
    """
    finite = np.isfinite(boxes).all(1)
    if not finite.all():
        row = int(finite.argmin())
        raise AnnotationError(
            f"image {names[_image_of(row, counts)]} has the box {boxes[row].tolist()}, which is not finite: correct or "
            "remove the annotation, or the transform that made it."
        )
    if image_size is not None and min(image_size) >= 32 and len(boxes) > 1 and boxes.min() >= 0 and boxes.max() <= 1.5:
        raise AnnotationError(
            f"image {names[_image_of(0, counts)]} of {image_size[1]}x{image_size[0]} pixels has the box "
            f"{boxes[0].tolist()}, and no box of its batch is larger than 1.5 pixels: they look normalised, multiply "
            "them by the width and height of the image."
        )


def _check_labels(labels: NDArray[np.int64], num_classes: int, counts: Sequence[int], names: Sequence[Any]) -> None:
    """Refuse what would otherwise end in an index error, naming the image."""
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise AnnotationError(
            f"image {names[_image_of(row, counts)]} has an object with label {int(labels[row])}, outside "
            f"0..{num_classes - 1}: number the classes contiguously from 0, or build the detector with more classes."
        )


def _image_of(row: int, counts: Sequence[int]) -> int:
    """Return the position in the batch of the image that flat row ``row`` belongs to."""
    return bisect_right(list(accumulate(counts)), row)
