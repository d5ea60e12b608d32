"""Detections and ground truth of a whole data set as flat arrays, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["DetectionTable", "ObjectTable", "box_iou", "stable_order", "xywh_of"]

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Table = TypeVar("Table", "DetectionTable", "ObjectTable")


@dataclass(frozen=True)
class DetectionTable:
    """Detections of all images, in the order of their images; the order decides between equal scores.

    Attributes:
        image: ``(K,)`` integer, ascending; images are numbered from 0.
        label: ``(K,)`` integer from 0.
        score: ``(K,)`` float.
        xywh: ``(K, 4)`` float64 left, top, width, height in original pixels, as COCO files have them.
    """

    image: Integers
    label: Integers
    score: Floats
    xywh: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.image)


@dataclass(frozen=True)
class ObjectTable:
    """Ground truth of all images, in the order of their images.

    Attributes:
        image: ``(N,)`` integer, ascending.
        label: ``(N,)`` integer from 0.
        iscrowd: ``(N,)`` bool.
        area: ``(N,)`` float64 square pixels: of the mask, where there is one.
        xywh: ``(N, 4)`` float64 left, top, width, height in original pixels.
    """

    image: Integers
    label: Integers
    iscrowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    xywh: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.image)


def select(table: Table, rows: NDArray[Any]) -> Table:
    """Return the table of these rows, in this order."""
    return type(table)(**{field.name: getattr(table, field.name)[rows] for field in fields(table)})


def xywh_of(xyxy: Floats) -> NDArray[np.float64]:
    """Return ``(N, 4)`` left, top, width, height of boxes ``(N, 4)`` given by their corners."""
    wide = xyxy.astype(np.float64)
    wide[:, 2:] -= wide[:, :2]
    return wide


def box_iou(
    found: NDArray[np.float64], objects: NDArray[np.float64], iscrowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return ``(P,)`` IoU of paired ``xywh`` boxes ``(P, 4)``; over the area of the detection alone at a crowd.

    The additions are done in pycocotools' order, so that an IoU on a threshold falls on the same side of it.
    """
    iou = np.zeros(len(found))
    x1, y1, width, height = found.T
    object_x1, object_y1, object_width, object_height = objects.T
    overlap_x = np.minimum(width + x1, object_width + object_x1) - np.maximum(x1, object_x1)
    overlap_y = np.minimum(height + y1, object_height + object_y1) - np.maximum(y1, object_y1)
    meet = np.flatnonzero((overlap_x > 0) & (overlap_y > 0))
    overlap, area = overlap_x[meet] * overlap_y[meet], width[meet] * height[meet]
    union = np.where(iscrowd[meet], area, area + object_width[meet] * object_height[meet] - overlap)
    iou[meet] = overlap / union
    return iou


def stable_order(*keys: Integers) -> NDArray[np.int64]:
    """Return ``(N,)`` the order by non-negative integer keys, the last one first, that keeps equal rows in place.

    One pass for each key; of 16 bits or fewer they are sorted by radix, in linear time.
    """
    order = np.arange(len(keys[0]))
    for key in keys:
        small = key.astype(np.uint16) if len(key) and key.max() < 2**16 else key
        order = order[np.argsort(small[order], kind="stable")]
    return order


def group_starts(*keys: Integers) -> NDArray[np.int64]:
    """Return ``(G + 1,)`` where each run of equal rows starts in sorted keys ``(N,)``, and ``N``."""
    count = len(keys[0])
    changes = np.zeros(max(count - 1, 0), dtype=np.bool_)
    for key in keys:
        changes |= key[1:] != key[:-1]
    inner = np.flatnonzero(changes) + 1
    return np.concatenate([np.zeros(min(count, 1), dtype=np.int64), inner, [count]]).astype(np.int64)


def positions_in_groups(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``(N,)`` the position of each row within its run, from :func:`group_starts`."""
    return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))


def ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers ``start, ..., start + count - 1`` of each pair, one after another."""
    ends = np.cumsum(counts)
    numbers: NDArray[np.int64] = np.arange(int(counts.sum())) + np.repeat(starts - (ends - counts), counts)
    return numbers


def concatenate(arrays: Sequence[NDArray[Any]], columns: int, dtype: type) -> NDArray[Any]:
    """Return ``(N, columns)`` the rows of all arrays, which may be none."""
    return np.concatenate([np.zeros((0, columns), dtype=dtype), *arrays])
