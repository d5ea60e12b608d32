"""Boxes on pictures."""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["class_color", "draw_boxes"]

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

_COLORS = 96
"""Different colours; further classes repeat them."""


def class_color(label: int) -> Color:
    """Return the RGB colour of a class: as far, to the eye, from those of all classes before it as can be."""
    red, green, blue = _palette()[label % _COLORS].tolist()
    return red, green, blue


@cache
def _palette() -> Image:
    """Return ``(96, 3)`` colours, each the farthest from those before it in CIELAB, neither dark nor pale nor grey."""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = cv2.cvtColor(colors[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    usable = (lightness > 35) & (lightness < 92) & (chroma > 30)
    colors, lab = colors[usable], lab[usable]
    chosen = [int(chroma[usable].argmax())]
    distance = np.full(len(lab), np.inf)
    while len(chosen) < _COLORS:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    palette: Image = colors[chosen]
    return palette


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
    size, thickness, font = 0.3 + 0.14 * width, max(1, round(width / 3)), cv2.FONT_HERSHEY_SIMPLEX
    (text_width, text_height), baseline = cv2.getTextSize(caption, font, size, thickness)
    strip = text_height + baseline + 1
    left = max(0, min(left, canvas.shape[1] - text_width - 2))
    top = max(0, top - strip)
    cv2.rectangle(canvas, (left, top), (left + text_width + 2, top + strip), color, cv2.FILLED)
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    cv2.putText(canvas, caption, (left + 1, top + text_height + 1), font, size, ink, thickness, cv2.LINE_AA)
