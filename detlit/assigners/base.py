"""What an assigner is: it decides, without gradients, which anchor point learns which object."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from detlit.ops.boxes import decode_boxes, full_precision
from detlit.ops.targets import BatchObjects
from detlit.spec import Recorded
from detlit.structures import Level, RawPredictions

__all__ = ["Assigner", "Assignment", "ImageAssigner", "ImageObjects", "ImagePredictions"]


class Assignment(NamedTuple):
    """The ``P`` anchor points that learn an object, by image and then by anchor point; all others are background.

    Attributes:
        image: ``(P,)`` int64 position of the image in the batch.
        anchor: ``(P,)`` int64 anchor point; no anchor point of an image occurs twice.
        object: ``(P,)`` int64 row of its object in the :class:`~detlit.ops.targets.BatchObjects`.
        scores: ``(P,)`` in [0, 1], the classification target of the object's class.
    """

    image: Tensor
    anchor: Tensor
    object: Tensor
    scores: Tensor

    def dense(self, num_images: int, num_anchors: int) -> tuple[Tensor, Tensor]:
        """Return ``(B, A)`` objects, -1 for background, and ``(B, A)`` scores, 0 for background; to look at."""
        objects = self.object.new_full((num_images, num_anchors), -1)
        scores = self.scores.new_zeros(num_images, num_anchors)
        objects[self.image, self.anchor] = self.object
        scores[self.image, self.anchor] = self.scores
        return objects, scores


class Assigner(Recorded, ABC):
    """Base of assigners. One that is easier to write for a single image derives from :class:`ImageAssigner`."""

    @abstractmethod
    def __call__(self, predictions: RawPredictions, ground_truth: BatchObjects) -> Assignment:
        """Assign the objects of every image to its anchor points; objects with ``iscrowd`` stay without.

        Args:
            predictions: of any precision.
            ground_truth: objects on the device of the predictions. Their dtype is that of the scores.
        """


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


class ImageAssigner(Assigner):
    """Base of assigners that see one image, its boxes decoded; float32 or float64. Override :meth:`match`."""

    @torch.no_grad()
    def __call__(self, predictions: RawPredictions, ground_truth: BatchObjects) -> Assignment:
        """Match image after image; see :meth:`Assigner.__call__`."""
        columns: list[tuple[Tensor, ...]] = [_nothing(ground_truth)]
        first = 0
        for i, objects in enumerate(ground_truth.images()):
            if ground_truth.counts[i]:
                matched, quality = self.match(_image(predictions, i), ImageObjects(*objects))
                anchor, row = matched.T.nonzero(as_tuple=True)
                columns.append((torch.full_like(row, i), anchor, row + first, quality[row, anchor]))
            first += ground_truth.counts[i]
        return Assignment(*(torch.cat(column) for column in zip(*columns, strict=True)))

    @abstractmethod
    def match(self, predictions: ImagePredictions, objects: ImageObjects) -> tuple[Tensor, Tensor]:
        """Match the objects of one image; those with ``iscrowd`` must stay without anchor points.

        Returns:
            ``(N, A)`` bool, at most one object per anchor point, and ``(N, A)`` classification targets in [0, 1], read
            where the former is true.
        """


def _image(predictions: RawPredictions, i: int) -> ImagePredictions:
    return ImagePredictions(
        full_precision(predictions.cls_logits[i]),
        decode_boxes(predictions.reg_logits[i], predictions.anchor_points, predictions.strides),
        predictions.anchor_points,
        predictions.strides,
        predictions.levels,
    )


def _nothing(ground_truth: BatchObjects) -> tuple[Tensor, ...]:
    index = ground_truth.labels.new_zeros(0)
    return index, index, index, ground_truth.boxes.new_zeros(0)
