"""What an assigner is: it decides, without gradients, which anchor point learns which object."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from detlit.ops.boxes import boxes_to_distances, decode_boxes
from detlit.ops.targets import GroundTruth
from detlit.spec import Recorded
from detlit.structures import Level, RawPredictions

__all__ = [
    "Assigner",
    "Assignment",
    "ImageObjects",
    "ImagePredictions",
    "inside_boxes",
    "resolve_conflicts",
    "top_k_mask",
]


class Assignment(NamedTuple):
    """What each anchor point should predict.

    Attributes:
        labels: ``(B, A)`` int64 class of the assigned object; ``C`` is background.
        boxes: ``(B, A, 4)`` its xyxy box in pixels; zeros for background.
        scores: ``(B, A)`` in [0, 1], the classification target of its class; zero for background.
    """

    labels: Tensor
    boxes: Tensor
    scores: Tensor


class ImagePredictions(NamedTuple):
    """Predictions for one image: ``cls_logits (A, C)``, ``boxes (A, 4)`` xyxy pixels, and the anchor points."""

    cls_logits: Tensor
    boxes: Tensor
    anchor_points: Tensor
    strides: Tensor
    levels: tuple[Level, ...]


class ImageObjects(NamedTuple):
    """Ground truth of one image with objects: ``boxes (N, 4)`` xyxy pixels, ``labels (N,)``, ``iscrowd (N,)``."""

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor


class Assigner(Recorded, ABC):
    """Base of assigners. A new one overrides :meth:`match`, which sees one image."""

    @torch.no_grad()
    def __call__(self, predictions: RawPredictions, ground_truth: GroundTruth) -> Assignment:
        """Assign the objects of every image to its anchor points.

        Args:
            predictions: float32 or float64; their dtype is that of the result.
            ground_truth: objects on the device of the predictions.
        """
        images = []
        for i, (boxes, labels, iscrowd) in enumerate(ground_truth.images()):
            if len(boxes) == 0:
                images.append(_background(predictions))
                continue
            image = ImagePredictions(
                predictions.cls_logits[i],
                decode_boxes(predictions.reg_logits[i], predictions.anchor_points, predictions.strides),
                predictions.anchor_points,
                predictions.strides,
                predictions.levels,
            )
            objects = ImageObjects(boxes, labels, iscrowd)
            images.append(_gather(objects, *self.match(image, objects), num_classes=image.cls_logits.shape[-1]))
        return Assignment(*(torch.stack(column) for column in zip(*images, strict=True)))

    @abstractmethod
    def match(self, predictions: ImagePredictions, objects: ImageObjects) -> tuple[Tensor, Tensor]:
        """Match the objects of one image; those with ``iscrowd`` must stay without anchor points.

        Returns:
            ``(N, A)`` bool, at most one object per anchor point, and ``(N, A)`` classification targets in [0, 1], read
            where the former is true.
        """


def _background(predictions: RawPredictions) -> Assignment:
    """Return the assignment of one image without objects; ``(A,)``, ``(A, 4)``, ``(A,)``."""
    points = predictions.anchor_points
    return Assignment(
        labels=torch.full((len(points),), predictions.cls_logits.shape[-1], device=points.device),
        boxes=points.new_zeros(len(points), 4),
        scores=points.new_zeros(len(points)),
    )


def _gather(objects: ImageObjects, matched: Tensor, quality: Tensor, num_classes: int) -> Assignment:
    """Look up, for each anchor point of one image, the object it was matched with."""
    scores = (quality * matched).amax(0)
    assigned = matched.any(0)
    index = matched.int().argmax(0)
    return Assignment(
        labels=objects.labels[index].masked_fill(~assigned, num_classes),
        boxes=objects.boxes[index] * assigned[:, None],
        scores=scores,
    )


def inside_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Return ``(N, A)`` bool: ``points (A, 2)`` strictly inside ``boxes (N, 4)``, by more than 1e-9 pixels."""
    return boxes_to_distances(boxes[:, None], points).amin(-1) > 1e-9


def top_k_mask(values: Tensor, k: int) -> Tensor:
    """Return ``(N, A)`` bool: the ``k`` largest of each row, of equal ones those with the lowest index.

    :func:`torch.topk` leaves open which of several equal values it takes. Rows with fewer than ``k`` values keep all.
    """
    k = min(k, values.shape[1])
    smallest = values.topk(k, dim=1).values[:, -1:]
    above, tied = values > smallest, values == smallest
    return above | (tied & (tied.cumsum(1) <= k - above.sum(1, keepdim=True)))


def resolve_conflicts(matched: Tensor, iou: Tensor, iscrowd: Tensor) -> Tensor:
    """Leave each anchor point to one object.

    An anchor point that several objects claim goes to the object it overlaps most, of equal ones to the first. All
    objects of the image compete, also those that did not claim it: so do PaddleDetection and SuperGradients, where the
    published weights come from, and it only shows where boxes crowd.

    Args:
        matched: ``(N, A)`` bool claims.
        iou: ``(N, A)`` overlap that decides.
        iscrowd: ``(N,)`` bool objects that do not compete.
    """
    winner = iou.masked_fill(iscrowd[:, None], -1).argmax(0)
    wins = torch.arange(len(iou), device=iou.device)[:, None] == winner
    return torch.where(matched.sum(0) > 1, wins, matched)
