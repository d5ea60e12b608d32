"""Batches as pictures: images in a grid, with their objects, or with objects beside detections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.reports.draw import Color, Image, class_color, draw_boxes

__all__ = ["Boxes", "Shown", "batch_picture", "pixels_of"]

_PAPER, _INK, _GREY = (255, 255, 255), (32, 33, 36), (95, 99, 104)
_GAP = 12
_FEW = 10
"""Boxes up to which an image has space for captions; of more, only the colours tell the classes."""


@dataclass(frozen=True)
class Boxes:
    """Boxes on an image: objects, or with scores detections, the best first.

    Attributes:
        xyxy: ``(K, 4)`` pixels of the image.
        labels: class of each.
        scores: of detections.
        iscrowd: objects that stand for several; ``None`` for none.
        total: boxes that there are, if not all of them are drawn.
    """

    xyxy: NDArray[np.float32]
    labels: list[int]
    scores: list[float] | None = None
    iscrowd: list[bool] | None = None
    total: int | None = None


@dataclass(frozen=True)
class Shown:
    """An image of a batch picture.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        name: of the file, written above it.
        halves: the image is shown once with each of these.
    """

    image: Image
    name: str
    halves: list[Boxes] = field(default_factory=list)


def pixels_of(image: Tensor) -> Image:
    """Return an image as ``(H, W, 3)`` uint8 RGB.

    Args:
        image: ``(3, H, W)`` or ``(1, H, W)`` on any device: uint8, or float in [0, 1]; a float image that leaves this
            range was normalised, so that its least and greatest values become black and white.
    """
    pixels = image.detach()
    if pixels.dtype != torch.uint8:
        pixels = pixels.float()
        low, high = pixels.min(), pixels.max()
        if low < 0 or high > 1:
            pixels = (pixels - low) / (high - low).clamp(min=1e-6)
        pixels = (pixels * 255).round().to(torch.uint8)
    array: Image = pixels[:3].permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(np.broadcast_to(array[..., :1], (*array.shape[:2], 3)) if array.shape[2] < 3 else array)


def batch_picture(
    shown: Sequence[Shown],
    class_names: Sequence[str],
    title: str,
    heads: Sequence[str] = (),
    side: int = 480,
    most_side: int = 1920,
) -> Image:
    """Return a grid of images under a title and a legend of the classes in it.

    Args:
        shown: the images.
        class_names: of the labels; one that has none is called by its number.
        title: of the whole picture.
        heads: what the halves of each image show.
        side: longer side of each half in pixels; images are enlarged or made smaller to it.
        most_side: width of the picture, which lowers ``side`` where it would be exceeded.
    """
    num_halves = max([len(one.halves) for one in shown], default=1) or 1
    columns = _columns(len(shown)) if num_halves == 1 else max(1, min(2, len(shown)))
    side = min(side, (most_side - _GAP * (columns + 1)) // (columns * num_halves) - 4)
    cells = [_cell(one, class_names, heads, side) for one in shown]
    height, width = max(cell.shape[0] for cell in cells), max(cell.shape[1] for cell in cells)
    rows = math.ceil(len(cells) / columns)
    page_width = max(columns * (width + _GAP) + _GAP, 560)
    header = _header(page_width, title, _legend_of(shown, class_names))
    page = np.full((rows * (height + _GAP) + _GAP, page_width, 3), _PAPER, dtype=np.uint8)
    for number, cell in enumerate(cells):
        top, left = (number // columns) * (height + _GAP), _GAP + (number % columns) * (width + _GAP)
        page[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return np.vstack([header, page])


def _columns(count: int) -> int:
    """Return the columns of a grid that is about as wide as high, or wider, and has few empty cells."""
    least = math.ceil(math.sqrt(count))
    return min((least, least + 1), key=lambda columns: (-count % columns, columns))


def _cell(one: Shown, class_names: Sequence[str], heads: Sequence[str], side: int) -> Image:
    """Return an image under its name, once for each half."""
    scale = side / max(one.image.shape[:2])
    size = (max(1, round(one.image.shape[1] * scale)), max(1, round(one.image.shape[0] * scale)))
    image = cv2.resize(one.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    halves = []
    for number, boxes in enumerate(one.halves or [Boxes(np.zeros((0, 4), np.float32), [])]):
        drawn = len(boxes.labels)
        count = f"{drawn}" if boxes.total in (None, drawn) else f"the best {drawn} of {boxes.total}"
        what = heads[number] if number < len(heads) else ""
        count = f"{count} {what.removesuffix('s') if count == '1' else what}" if what else ""
        strip = np.full((22, size[0], 3), _PAPER, dtype=np.uint8)
        used = _write(strip, count, size[0], 16, _GREY, 0.42, right=True)
        if number == 0:
            _write(strip, _abridged(one.name, size[0] - used - 12), 0, 16, _INK, 0.42)
        halves += [np.vstack([strip, _drawn(image.astype(np.uint8), boxes, class_names, scale)])]
        halves += [np.full((size[1] + 22, 4, 3), _PAPER, dtype=np.uint8)]
    return np.hstack(halves[:-1])


def _drawn(image: Image, boxes: Boxes, class_names: Sequence[str], scale: float) -> Image:
    """Return an image with boxes: with captions if they are few, with outlines alone otherwise; the first on top."""
    corners = boxes.xyxy * scale
    canvas: Image = image.copy()
    for (left, top, right, bottom), label in reversed(
        list(zip(np.rint(corners).astype(int).tolist(), boxes.labels, strict=True))
    ):
        cv2.rectangle(canvas, (left, top), (right, bottom), class_color(label), 2)
    if len(boxes.labels) > _FEW:
        return canvas
    names = [_name(label, class_names) for label in range(max(boxes.labels, default=-1) + 1)]
    crowds = boxes.iscrowd or [False] * len(boxes.labels)
    for suffix, chosen in ((" (crowd)", True), ("", False)):
        rows = [row for row, crowd in enumerate(crowds) if crowd == chosen]
        scores = None if boxes.scores is None else [boxes.scores[row] for row in rows]
        captions = [name + suffix for name in names]
        canvas = draw_boxes(canvas, corners[rows], [boxes.labels[row] for row in rows], captions, scores)
    return canvas


# ------------------------------------------------------------------------------------------------------ words
def _legend_of(shown: Sequence[Shown], class_names: Sequence[str]) -> list[tuple[str, Color]]:
    """Return name and colour of the classes that are drawn."""
    labels = {label for one in shown for boxes in one.halves for label in boxes.labels}
    return [(_name(label, class_names), class_color(label)) for label in sorted(labels)]


def _header(width: int, title: str, legend: Sequence[tuple[str, Color]]) -> Image:
    """Return a strip with the title, and below it the legend as far as one line holds it."""
    strip = np.full((62, width, 3), _PAPER, dtype=np.uint8)
    _write(strip, _abridged(title, width - 2 * _GAP, 0.6), _GAP, 24, _INK, 0.6)
    left = _GAP
    for number, (name, color) in enumerate(legend):
        rest = f"+ {len(legend) - number} classes"
        if left + 40 + _text_width(name, 0.45) + _text_width(rest, 0.45) > width and number < len(legend) - 1:
            _write(strip, rest, left, 48, _GREY, 0.45)
            break
        cv2.rectangle(strip, (left, 38), (left + 12, 50), color, cv2.FILLED)
        left += 18
        left += _write(strip, name, left, 48, _INK, 0.45) + 18
    return strip


def _write(strip: Image, text: str, x: int, baseline: int, ink: Color, size: float, *, right: bool = False) -> int:
    """Write a text that starts, or ends, at ``x``, and return its width."""
    width = _text_width(text, size)
    start = (x - width if right else x, baseline)
    cv2.putText(strip, text, start, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)
    return width


def _text_width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])


def _abridged(text: str, width: int, size: float = 0.42) -> str:
    """Return a text with its middle left out if it is wider than so many pixels."""
    if _text_width(text, size) <= width:
        return text
    most = max(4, int(len(text) * width / _text_width(text, size)) - 2)
    return f"{text[: most // 2]}..{text[len(text) - (most - most // 2) :]}"


def _name(label: int, class_names: Sequence[str]) -> str:
    return class_names[label] if 0 <= label < len(class_names) else f"class_{label}"
