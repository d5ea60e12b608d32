"""Pictures for reports: images made small, with the boxes in question standing out."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["mark_boxes", "side_by_side"]

Image = NDArray[np.uint8]

_MARKED, _OTHER = (255, 45, 85), (235, 235, 235)
_FEW = 4
"""Marked boxes up to which there is space for captions."""

_SMALL = 24
"""Pixels below which a box gets a ring, so that it is found."""


def mark_boxes(
    image: Image,
    boxes: NDArray[np.float64],
    marked: Sequence[int],
    captions: Sequence[str],
    side: int = 480,
) -> Image:
    """Return a small copy of an image with thin light boxes, and the marked ones thick and red.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        boxes: ``(K, 4)`` xyxy pixels; those that are NaN are not drawn, those that leave the image as far as it goes.
        marked: which boxes stand out.
        captions: of the marked boxes, written if they are few.
        side: longer side of the result in pixels.
    """
    canvas, scale = _fit(image, side)
    height, width = canvas.shape[:2]
    drawable = [bool(np.isfinite(box).all()) for box in boxes]
    corners = np.rint(np.clip(np.nan_to_num(boxes) * scale, -1, [width, height, width, height])).astype(int)
    for row in range(len(boxes)):
        if drawable[row] and row not in marked:
            _rectangle(canvas, corners[row].tolist(), (40, 40, 40), 2)
            _rectangle(canvas, corners[row].tolist(), _OTHER, 1)
    for row, caption in zip(marked, captions, strict=True):
        if drawable[row]:
            left, top, right, bottom = corners[row].tolist()
            left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
            box = [max(left, 1), max(top, 1), min(max(right, 2), width - 2), min(max(bottom, 2), height - 2)]
            _rectangle(canvas, [min(box[0], width - 3), min(box[1], height - 3), box[2], box[3]], _MARKED, 2)
            if min(right - left, bottom - top) < _SMALL:
                top = _ring(canvas, left, top, right, bottom)
            if len(marked) <= _FEW:
                _caption(canvas, caption, left, top)
    return canvas


def side_by_side(first: Image, second: Image, side: int = 480) -> Image:
    """Return two images beside each other, of one height, together ``side`` pixels wide at most."""
    height = min(side // 2, first.shape[0], second.shape[0])
    halves = [
        cv2.resize(
            image, (max(1, round(image.shape[1] * height / image.shape[0])), height), interpolation=cv2.INTER_AREA
        )
        for image in (first, second)
    ]
    gap = np.full((height, 4, 3), 128, dtype=np.uint8)
    return _fit(np.hstack([halves[0], gap, halves[1]]).astype(np.uint8), side)[0]


def _fit(image: Image, side: int) -> tuple[Image, float]:
    """Return a copy whose longer side is ``side`` at most, and half of that at least, and its scale."""
    longest = max(image.shape[:2])
    scale = min(1.0, side / longest) if longest >= side / 2 else side / 2 / longest
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    method = cv2.INTER_AREA if scale <= 1 else cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=method).astype(np.uint8), scale


def _ring(canvas: Image, left: int, top: int, right: int, bottom: int) -> int:
    """Draw a ring around a small box, its centre kept inside the image, and return its upper edge."""
    height, width = int(canvas.shape[0]), int(canvas.shape[1])
    radius = max(_SMALL, max(right - left, bottom - top) // 2 + 6)
    centre = (min(max((left + right) // 2, 6), width - 6), min(max((top + bottom) // 2, 6), height - 6))
    cv2.circle(canvas, centre, radius, _MARKED, 2, cv2.LINE_AA)
    return centre[1] - radius


def _rectangle(canvas: Image, box: Sequence[int], color: tuple[int, int, int], width: int) -> None:
    cv2.rectangle(canvas, (box[0], box[1]), (box[2], box[3]), color, width)


def _caption(canvas: Image, text: str, left: int, top: int) -> None:
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    left = max(0, min(left, canvas.shape[1] - width - 4))
    top = max(0, min(top - height - baseline - 3, canvas.shape[0] - height - baseline - 3))
    cv2.rectangle(canvas, (left, top), (left + width + 4, top + height + baseline + 3), _MARKED, cv2.FILLED)
    cv2.putText(
        canvas, text, (left + 2, top + height + 2), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA
    )
