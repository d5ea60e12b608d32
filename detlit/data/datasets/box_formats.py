"""Boxes in the formats that people keep them in, as xyxy pixels."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detlit.errors import AnnotationError, ConfigurationError

__all__ = ["BoxFormat", "check_box_format", "to_xyxy"]

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Corners; top-left corner and size, as in COCO; centre and size, as in YOLO."""


def check_box_format(box_format: str) -> None:
    """Refuse formats that are unknown.

    Raises:
        ConfigurationError: it is none of :data:`BoxFormat`.
    """
    if box_format not in get_args(BoxFormat):
        raise ConfigurationError(f"box_format={box_format!r} is unknown: choose {', '.join(get_args(BoxFormat))}.")


def to_xyxy(boxes: ArrayLike, box_format: BoxFormat, size: tuple[int, int] | None, where: str) -> NDArray[np.float64]:
    """Return ``(N, 4)`` xyxy boxes in pixels.

    Args:
        boxes: ``(N, 4)`` in ``box_format``; an empty list is none.
        box_format: what the four numbers are.
        size: (height, width) of the image in pixels, if the boxes are fractions of it.
        where: the image, for messages.

    Raises:
        AnnotationError: boxes that are not four finite numbers each.
    """
    try:
        array = np.array(boxes, dtype=np.float64)
    except (TypeError, ValueError):
        raise AnnotationError(f"{where} has boxes that are not four numbers each: correct them.") from None
    array = array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4:
        raise AnnotationError(f"{where} has boxes {array.shape}: they must be (N, 4), {box_format}.")
    if not np.isfinite(array).all():
        raise AnnotationError(f"{where} has a box that is NaN or infinite: correct its annotation.")
    first, second = array[:, :2], array[:, 2:]
    if box_format == "xywh":
        second = first + second
    elif box_format == "cxcywh":
        first, second = first - second / 2, first + second / 2
    array = np.concatenate([first, second], axis=1)
    return array if size is None else array * [size[1], size[0], size[1], size[0]]
