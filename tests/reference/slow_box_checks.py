"""The faults of boxes, one box at a time, as their definitions read."""

import math
from collections.abc import Sequence

__all__ = ["slow_box_faults"]

Box = Sequence[float]


def slow_box_faults(boxes: Sequence[Box], labels: Sequence[int], width: int, height: int) -> list[set[str]]:
    """Return the faults of each box of one image.

    Args:
        boxes: xyxy pixels.
        labels: their classes.
        width: of the image in pixels, which is the network input too.
        height: of the image.
    """
    faults: list[set[str]] = []
    judged: list[tuple[Box, int]] = []
    for box, label in zip(boxes, labels, strict=True):
        gravest = _gravest(box, width, height)
        faults.append({gravest} if gravest else _others(box, label, judged, width, height))
        if not gravest:
            judged.append((box, label))
    return faults


def _gravest(box: Box, width: int, height: int) -> str | None:
    x1, y1, x2, y2 = box
    if not all(math.isfinite(value) for value in box):
        return "nan-box"
    if x2 > x1 and y2 > y1 and x1 >= 0 and y1 >= 0 and max(x1, y1, x2 - x1, y2 - y1) <= 1:
        return "normalised-box"
    if x2 < x1 or y2 < y1:
        return "negative-box"
    if x2 == x1 or y2 == y1:
        return "zero-area-box"
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return "outside-box"
    if max(-x1, -y1, x2 - width, y2 - height) > 2:
        covers = x2 - x1 >= 0.9 * width and y2 - y1 >= 0.9 * height
        return "oversized-box" if covers and (x2 - x1 > width or y2 - y1 > height) else "overhanging-box"
    return None


def _others(box: Box, label: int, earlier: list[tuple[Box, int]], width: int, height: int) -> set[str]:
    x1, y1, x2, y2 = box
    found = set()
    if x2 - x1 >= 0.99 * width and y2 - y1 >= 0.99 * height:
        found.add("whole-image-box")
    if max(x2 - x1, y2 - y1) > 30 * min(x2 - x1, y2 - y1):
        found.add("sliver-box")
    if min(x2 - x1, y2 - y1) < 8:
        found.add("small-object")
    same = {other for before, other in earlier if list(before) == list(box)}
    if label in same:
        found.add("repeated-box")
    elif same:
        found.add("two-classes")
    return found
