"""Boxes on pictures."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["class_color", "draw_boxes"]

Image = NDArray[np.uint8]
Color = tuple[int, int, int]


def class_color(label: int) -> Color:
    """Return the RGB colour of a class: neighbours in the list are far apart on the colour wheel (golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb((0.36 + label * 0.618034) % 1.0, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: Image,
    boxes: NDArray[np.floating],
    labels: Sequence[int],
    class_names: Sequence[str],
    scores: Sequence[float] | None = None,
) -> Image:
    """Return a copy of an image with labelled boxes; line width and letters grow with the image.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        boxes: ``(K, 4)`` xyxy pixels of ``image``; the first is drawn last, on top.
        labels: class of each box.
        class_names: names of the classes.
        scores: printed after the names, if given.
    """
    canvas: Image = np.ascontiguousarray(image).copy()
    width = max(1, round(max(image.shape[:2]) / 400))
    captions = [class_names[label] for label in labels]
    if scores is not None:
        captions = [f"{caption} {score:.2f}" for caption, score in zip(captions, scores, strict=True)]
    drawn = list(zip(np.rint(boxes).astype(int).tolist(), labels, captions, strict=True))[::-1]
    for (left, top, right, bottom), label, _ in drawn:
        cv2.rectangle(canvas, (left, top), (right, bottom), class_color(label), width)
    for (left, top, _, _), label, caption in drawn:
        _draw_caption(canvas, caption, left, top, class_color(label), width)
    return canvas


def _draw_caption(canvas: Image, caption: str, left: int, top: int, color: Color, width: int) -> None:
    """Write a caption on a filled strip above (left, top), moved inside the image where it would leave it."""
    size, font = 0.38 + 0.14 * width, cv2.FONT_HERSHEY_SIMPLEX
    (text_width, text_height), baseline = cv2.getTextSize(caption, font, size, 1)
    strip = text_height + baseline + 1
    left = max(0, min(left, canvas.shape[1] - text_width - 2))
    top = max(0, top - strip)
    cv2.rectangle(canvas, (left, top), (left + text_width + 2, top + strip), color, cv2.FILLED)
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    cv2.putText(canvas, caption, (left + 1, top + text_height + 1), font, size, ink, 1, cv2.LINE_AA)
