"""What is annotated in one image, as a data set gives it and as it is checked."""

from numbers import Real
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detlit.data.sample import Originals
from detlit.errors import AnnotationError

__all__ = ["REVERSED_HINT", "GroundTruth", "originals_of", "refuse_normalised", "reversed_boxes", "whole_labels"]

REVERSED_HINT = "boxes must be xyxy, corner and corner, and these may be xywh"


class GroundTruth(TypedDict, total=False):
    """What is annotated in one image: ``boxes`` and ``labels``, and whatever else is known.

    ``boxes (N, 4)`` xyxy pixels of the image, ``labels (N,)`` contiguous from 0, ``iscrowd (N,)`` (none unless given),
    ``area (N,)`` square pixels (of the box unless given), ``image_id`` (the index unless given), ``path`` for messages.
    """

    boxes: ArrayLike
    labels: ArrayLike
    iscrowd: ArrayLike
    area: ArrayLike
    image_id: int
    path: str


def originals_of(truth: GroundTruth, num_classes: int, path: str) -> Originals:
    """Return the annotated objects of an image as arrays.

    Args:
        truth: as ``load_target`` returns it.
        num_classes: labels are below.
        path: of the image, for messages.

    Raises:
        AnnotationError: boxes or labels that cannot be, or not one label for each box.
    """
    boxes, labels = _boxes(truth["boxes"], path), whole_labels(truth["labels"], path)
    if boxes.shape != (len(labels), 4):
        raise AnnotationError(f"{path} has boxes {boxes.shape} for {len(labels)} labels: boxes must be (N, 4).")
    if not np.isfinite(boxes).all():
        raise AnnotationError(f"{path} has a box that is NaN or infinite: correct its annotation.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise AnnotationError(f"{path} has label {wrong}: labels count from 0 to {num_classes - 1}, as class_names do.")
    size = boxes[:, 2:] - boxes[:, :2]
    return Originals(
        boxes=boxes,
        labels=labels,
        iscrowd=np.array(truth.get("iscrowd", np.zeros(len(labels))), dtype=np.bool_),
        area=np.array(truth.get("area", size[:, 0] * size[:, 1]), dtype=np.float64),
    )


def _boxes(given: Any, path: str) -> NDArray[np.float64]:
    try:
        boxes = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise AnnotationError(f"{path} has boxes that are not four numbers each: correct them.") from None
    return boxes.reshape(0, 4) if boxes.size == 0 else boxes


def whole_labels(given: Any, path: str) -> NDArray[np.int64]:
    """Return the labels ``(N,)`` of an image.

    Raises:
        AnnotationError: they are no whole numbers.
    """
    try:
        labels = np.asarray(given).reshape(-1)
    except ValueError:  # lists of several lengths
        labels = np.array([None])
    if labels.dtype.kind == "O" and all(isinstance(label, Real) for label in labels):  # as pandas gives mixed columns
        labels = labels.astype(np.float64)
    if len(labels) and (labels.dtype.kind not in "buif" or (labels % 1 != 0).any()):
        raise AnnotationError(f"{path} has labels {given!r}: load_target must return whole numbers, one per box.")
    return labels.astype(np.int64)


def reversed_boxes(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return ``(N,)`` whether the second corner of an xyxy box lies left of the first, or above it."""
    first, second = boxes[:, :2], boxes[:, 2:]
    return (second[:, 0] < first[:, 0]) | (second[:, 1] < first[:, 1])


def refuse_normalised(boxes: NDArray[np.float64], where: str) -> None:
    """Refuse boxes that are shares of the image's sides instead of pixels, with which nothing would be learned.

    Args:
        boxes: ``(N, 4)`` xyxy, of an image or of a data set. A single tiny box may be a slip of the mouse.
        where: what they belong to, for the message.

    Raises:
        AnnotationError: several boxes with an area, and all within a pixel and a half of the top left corner.
    """
    sized = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    if len(sized) > 1 and sized.min() >= 0 and sized.max() <= 1.5:
        raise AnnotationError(
            f"{where} has the box {sized[0].round(4).tolist()} and none that is larger than 1.5 pixels: they look "
            "normalised, multiply them by the width and height of the image."
        )
