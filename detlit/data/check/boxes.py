"""Faults of boxes, on whole tables at once. A box is reported for its gravest fault only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detlit.data.check.finding import Finding, of_objects
from detlit.data.check.formats import Reading, check_formats
from detlit.data.check.records import Records
from detlit.structures import Preprocessing

__all__ = ["check_boxes"]

Mask = NDArray[np.bool_]

OVERHANG = 2.0
"""Pixels that a box may reach out of its image, as rounding makes boxes do."""

SLIVER = 30.0
"""A box more times longer than wide is taken for a mistake."""

SMALL = 8.0
"""Pixels of the network input, one cell of the finest feature map, below which an object is small."""

SAME = 0.1
"""Pixels to which boxes are rounded before they are compared."""


def check_boxes(records: Records, preprocessing: Preprocessing) -> list[Finding]:
    """Return the faults of all boxes.

    Args:
        records: the table.
        preprocessing: how images become network input, for what is small there.
    """
    finite = np.isfinite(records.boxes).all(axis=1)
    findings = of_objects("nan-box", records, ~finite)
    readings = check_formats(records, finite)
    misread = np.zeros(len(finite), dtype=np.bool_)
    for reading in readings:
        findings += _format_finding(records, reading)
        misread |= reading.rows
    extent = _Extent.of(records)
    judged, found = _check_extent(records, extent, finite & ~misread)
    findings += found
    findings += _check_shape(records, extent, judged)
    findings += _check_repeats(records, judged)
    findings += of_objects("small-object", records, *_small(records, judged, preprocessing))
    return findings


def _format_finding(records: Records, reading: Reading) -> list[Finding]:
    return of_objects(reading.code, records, reading.rows & reading.shown, remark=reading.remark)


@dataclass(frozen=True)
class _Extent:
    """Sides of boxes and images in pixels; images of unknown size are endless.

    Attributes:
        size: ``(M, 2)`` width and height of the boxes.
        image: ``(M, 2)`` width and height of their images.
        overhang: ``(M,)`` how far they reach out of them.
        outside: ``(M,)`` whether nothing of them is inside.
    """

    size: NDArray[np.float64]
    image: NDArray[np.float64]
    overhang: NDArray[np.float64]
    outside: Mask

    @classmethod
    def of(cls, records: Records) -> "_Extent":
        boxes = np.nan_to_num(records.boxes, nan=0.0, posinf=0.0, neginf=0.0)
        annotated = records.sizes[records.image][:, ::-1]
        image = np.where(annotated > 0, annotated, np.inf)
        low, high = boxes[:, :2], boxes[:, 2:]
        return cls(
            size=high - low,
            image=image,
            overhang=np.maximum(-low, high - image).max(axis=1, initial=0.0),
            outside=((high <= 0) | (low >= image)).any(axis=1),
        )


def _check_extent(records: Records, extent: _Extent, candidates: Mask) -> tuple[Mask, list[Finding]]:
    """Return which boxes have an area inside their image, and what is wrong with the others or those that overhang."""
    negative = candidates & (extent.size < 0).any(axis=1)
    empty = candidates & ~negative & (extent.size == 0).any(axis=1)
    outside = candidates & ~negative & ~empty & extent.outside
    inside = candidates & ~negative & ~empty & ~outside
    beyond = inside & (extent.overhang > OVERHANG)
    larger = (extent.size > extent.image).any(axis=1) & (extent.size >= 0.9 * extent.image).all(axis=1)
    findings = [
        *of_objects("negative-box", records, negative),
        *of_objects("zero-area-box", records, empty),
        *of_objects("outside-box", records, outside, extent.overhang),
        *of_objects("oversized-box", records, beyond & larger, extent.overhang),
        *of_objects("overhanging-box", records, beyond & ~larger, extent.overhang),
    ]
    return inside & ~beyond, findings


def _check_shape(records: Records, extent: _Extent, judged: Mask) -> list[Finding]:
    single = judged & ~records.iscrowd
    whole = single & (extent.size >= 0.99 * extent.image).all(axis=1)
    size = np.where(single[:, None], extent.size, 1.0)
    ratio = size.max(axis=1, initial=0.0) / size.min(axis=1, initial=np.inf)
    return [
        *of_objects("whole-image-box", records, whole),
        *of_objects("sliver-box", records, single & (ratio > SLIVER), ratio),
    ]


def _check_repeats(records: Records, judged: Mask) -> list[Finding]:
    """Return boxes of one image that are equal; the first of each class is not counted as a repeat."""
    rows = np.flatnonzero(judged & ~records.iscrowd)
    keys = np.column_stack([records.image[rows], np.rint(records.boxes[rows] / SAME)])
    place = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    first_of_place = np.unique(place, return_index=True)[1]
    first_of_class = np.unique(np.column_stack([place, records.labels[rows]]), axis=0, return_index=True)[1]
    new_place, new_class = np.zeros((2, len(rows)), dtype=np.bool_)
    new_place[first_of_place], new_class[first_of_class] = True, True
    repeated, other_class = np.zeros((2, len(judged)), dtype=np.bool_)
    repeated[rows[~new_class]] = True
    other_class[rows[new_class & ~new_place]] = True
    return [
        *of_objects("repeated-box", records, repeated),
        *of_objects("two-classes", records, other_class),
    ]


def _small(records: Records, judged: Mask, preprocessing: Preprocessing) -> tuple[Mask, NDArray[np.float64], str]:
    """Return which objects are small in the network input, how small, and in words at which size."""
    side = network_sides(records, preprocessing)[0].min(axis=1, initial=np.inf)
    height, width = preprocessing.size
    small = judged & ~records.iscrowd & (side < SMALL)
    share = small.sum() / max(1, int(judged.sum()))
    return small, -side, f"at {width}x{height} pixels; {share:.1%} of all objects"


def network_sides(records: Records, preprocessing: Preprocessing) -> tuple[NDArray[np.float64], Mask]:
    """Return ``(M, 2)`` width and height of each box in network input pixels, and ``(M,)`` whether they are known."""
    sizes, position = np.unique(records.sizes, axis=0, return_inverse=True)
    scales = np.array(
        [preprocessing.geometry(*size)[:2] if min(size) > 0 else (np.nan, np.nan) for size in sizes.tolist()]
    ).reshape(-1, 2)
    sides = (records.boxes[:, 2:] - records.boxes[:, :2]) * scales[position.reshape(-1)][records.image]
    known = np.isfinite(sides).all(axis=1) & (sides > 0).all(axis=1)
    return np.where(known[:, None], sides, np.inf), known
