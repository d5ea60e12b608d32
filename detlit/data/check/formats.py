"""Boxes written in another format than they are read in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detlit.data.check.records import Records

__all__ = ["Reading", "check_formats"]

Boxes = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEW = 10
"""Boxes of a split below which its format is not doubted."""

MISFIT, FIT = 0.1, 0.99
"""The format is doubted where this share of boxes does not fit its image, and another explains it by which that share
does."""

SLACK = 2.0
"""Pixels that a box may reach out of its image and still fit."""

_WRITTEN_IN = {"coco": "xywh", "yolo": "cxcywh", "voc": "xyxy"}

_IN_WORDS = {
    "xywh": "left, top, width, height",
    "cxcywh": "centre x, centre y, width, height",
    "xyxy": "left, top, right, bottom",
}


@dataclass(frozen=True)
class Reading:
    """Boxes that make sense in another format.

    Attributes:
        code: kind of the finding.
        rows: ``(M,)`` the boxes, which nothing else is said about.
        shown: ``(M,)`` which of them to show: those that cannot be right as they are read.
        remark: the format in words.
    """

    code: str
    rows: Mask
    shown: Mask
    remark: str


def check_formats(records: Records, finite: Mask) -> list[Reading]:
    """Return boxes that fit their images much better in another format, and those written in other units.

    Args:
        records: the table.
        finite: ``(M,)`` boxes that are finite.
    """
    sizes = records.sizes[records.image][:, ::-1].astype(np.float64)
    known = finite & (sizes > 0).all(axis=1)
    boxes = np.where(finite[:, None], records.boxes, 0.0)
    readings = []
    for number, split in enumerate(records.splits):
        written_in = _WRITTEN_IN.get(split.format, "xyxy")
        rows = known & (records.split == number)
        unit = _other_unit(boxes, sizes, rows, split.format, written_in)
        if unit is not None:
            readings.append(unit)
            rows &= ~unit.rows
        other = _other_order(boxes, sizes, rows, written_in)
        if other is not None:
            readings.append(Reading("other-format", rows, ~_fits(boxes, sizes), f"{split.name}: {other}"))
    return readings


def _other_unit(boxes: Boxes, sizes: Boxes, rows: Mask, file_format: str, written_in: str) -> Reading | None:
    """Return boxes in fractions of the image where pixels belong, or the other way round."""
    written = _as(boxes, written_in)
    if file_format == "yolo":
        fractions = written / np.tile(np.where(sizes > 0, sizes, 1.0), 2)
        found = rows & (written >= 0).all(axis=1) & (fractions > 2).any(axis=1) & (fractions[:, 2:] > 1).any(axis=1)
        return Reading("pixel-box", found, found, "") if found.any() else None
    found = rows & (written >= 0).all(axis=1) & (written <= 1).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return Reading("normalised-box", found, found, "") if found.any() else None


def _other_order(boxes: Boxes, sizes: Boxes, rows: Mask, written_in: str) -> str | None:
    """Return in words in which other order of numbers the boxes of a split fit their images, if in one."""
    count = int(rows.sum())
    if count < FEW or (~_fits(boxes[rows], sizes[rows])).mean() < MISFIT:
        return None
    written = _as(boxes[rows], written_in)
    for order in _IN_WORDS:
        if order != written_in and _fits(_from(written, order), sizes[rows]).mean() >= FIT:
            return f"the numbers fit the images as {_IN_WORDS[order]}, not as {_IN_WORDS[written_in]}"
    return None


def _fits(boxes: Boxes, sizes: Boxes) -> Mask:
    """Return ``(M,)`` whether boxes xyxy have an area and lie in their images, but for some slack."""
    ordered = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    inside = (boxes[:, :2] >= -SLACK).all(axis=1) & (boxes[:, 2:] <= sizes + SLACK).all(axis=1)
    return np.logical_and(ordered, inside)


def _as(boxes: Boxes, order: str) -> Boxes:
    """Return boxes xyxy as the numbers that a file of this order holds."""
    low, high = boxes[:, :2], boxes[:, 2:]
    if order == "xyxy":
        return boxes
    return np.hstack([low if order == "xywh" else (low + high) / 2, high - low])


def _from(written: Boxes, order: str) -> Boxes:
    """Return boxes xyxy from the numbers of a file of this order."""
    first, second = written[:, :2], written[:, 2:]
    if order == "xyxy":
        return written
    low = first if order == "xywh" else first - second / 2
    return np.hstack([low, low + second])
