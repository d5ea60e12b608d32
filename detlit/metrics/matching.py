"""Which detection finds which object: the greedy assignment of the COCO protocol, for a whole data set at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detlit.errors import ConfigurationError
from detlit.metrics.tables import (
    DetectionTable,
    Integers,
    ObjectTable,
    box_iou,
    group_starts,
    positions_in_groups,
    ranges,
    stable_order,
)

__all__ = ["Matches", "Settings", "match", "overlapping_pairs"]

Bits = NDArray[np.uint64]

PAIRS_AT_A_TIME = 2**18
"""Pairs whose IoU is computed together: few enough to stay in the cache."""


@dataclass(frozen=True)
class Settings:
    """What the COCO protocol leaves open; the defaults are those of its bounding box evaluation.

    Attributes:
        iou_thresholds: ``T`` ascending.
        recall_thresholds: ``R`` ascending, where precision is read off the curve.
        areas: ``A`` ranges (smallest, largest), in square pixels, both inclusive.
        max_detections: the best of each image and class that count; the last number is the one for precision.

    Raises:
        ConfigurationError: more than 64 combinations of thresholds and areas, or none.
    """

    iou_thresholds: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
    recall_thresholds: tuple[float, ...] = tuple(np.linspace(0.0, 1.0, 101).tolist())
    areas: tuple[tuple[float, float], ...] = ((0, 1e5**2), (0, 32**2), (32**2, 96**2), (96**2, 1e5**2))
    max_detections: tuple[int, ...] = (1, 10, 100)

    def __post_init__(self) -> None:
        """Check that the combinations fit into the bits of one integer."""
        if not 1 <= len(self.iou_thresholds) * len(self.areas) <= 64:
            raise ConfigurationError(
                f"{len(self.iou_thresholds)} IoU thresholds and {len(self.areas)} area ranges: "
                "choose 1 to 64 combinations."
            )

    def bit(self, threshold: int, area: int) -> np.uint64:
        """Return the integer of :class:`Matches` with the bit of this combination alone set."""
        bit: np.uint64 = np.uint64(1 << (threshold * len(self.areas) + area))
        return bit

    def area_bits(self, inside: Sequence[NDArray[np.bool_]]) -> Bits:
        """Return ``(N,)`` with the bits of each area set, at all IoU thresholds, where its ``(N,)`` flags are."""
        bits = np.zeros(len(inside[0]), dtype=np.uint64)
        for area, flags in enumerate(inside):
            pattern = sum(int(self.bit(threshold, area)) for threshold in range(len(self.iou_thresholds)))
            bits |= np.where(flags, np.uint64(pattern), np.uint64(0))
        return bits


@dataclass(frozen=True)
class Matches:
    """The detections that count, ordered by class, then image, then score, and what became of them.

    Bit ``threshold * A + area`` of an integer is the case of one IoU threshold and area range, see
    :meth:`Settings.bit`.

    Attributes:
        rows: ``(D,)`` of the table of detections.
        rank: ``(D,)`` position within image and class, 0 for the best score.
        matched: ``(D,)`` bits where the detection has an object.
        ignored: ``(D,)`` bits where it counts neither as right nor as wrong: its object is a crowd or outside the
            area range, or it has none and is itself outside.
        object_row: ``(D,)`` row of its object at the lowest IoU threshold and in the first area range, or -1.
        object_ignored: ``(N,)`` bits where an object does not count, by row of the table of objects.
    """

    rows: NDArray[np.int64]
    rank: NDArray[np.int64]
    matched: Bits
    ignored: Bits
    object_row: NDArray[np.int64]
    object_ignored: Bits


def match(detections: DetectionTable, objects: ObjectTable, settings: Settings) -> Matches:
    """Match every class of every image, at all IoU thresholds and in all area ranges together.

    In the order of their scores, detections take the free object of their class with the greatest IoU, the later one
    of equals; an object that is ignored only if no other will do, and a crowd however often.
    """
    rows, rank = _ranked(detections, settings.max_detections[-1])
    object_rows = stable_order(objects.image, objects.label)
    object_ignored = settings.area_bits(_outside(objects.area, objects.iscrowd, settings))
    found, position, iou = overlapping_pairs(
        detections, rows, objects, object_rows, settings.iou_thresholds[0], same_class=True
    )
    order, rounds = _rounds(found, detections, rows)
    pairs = _passed_bits(iou[order], settings), found[order], object_rows[position[order]]
    matched, ignored, object_row = _assign(pairs, rounds, object_ignored, objects.iscrowd, len(rows))
    area = detections.xywh[rows, 2] * detections.xywh[rows, 3]
    ignored |= settings.area_bits(_outside(area, np.zeros(len(rows), dtype=np.bool_), settings)) & ~matched
    return Matches(rows, rank, matched, ignored, object_row, object_ignored)


def _ranked(detections: DetectionTable, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows by class, image and descending score, and their ranks, of the ``limit`` best of each group."""
    by_score = np.argsort(-detections.score, kind="stable")
    rows = by_score[stable_order(detections.image[by_score], detections.label[by_score])]
    rank = positions_in_groups(group_starts(detections.image[rows], detections.label[rows]))
    if len(rank) and rank.max() >= limit:
        rows, rank = rows[rank < limit], rank[rank < limit]
    return rows, rank


def _outside(area: NDArray[np.float64], always: NDArray[np.bool_], settings: Settings) -> list[NDArray[np.bool_]]:
    """Return, for each area range, ``(N,)`` whether an area is outside, or ``always`` says so."""
    return [always | (area < low) | (area > high) for low, high in settings.areas]


def _passed_bits(iou: NDArray[np.float64], settings: Settings) -> Bits:
    """Return ``(P,)`` with the bits set whose threshold an IoU reaches; they are the lowest, thresholds ascend."""
    combinations = len(settings.areas) * np.arange(len(settings.iou_thresholds) + 1)
    lowest_bits = np.array([(1 << int(count)) - 1 for count in combinations], dtype=np.uint64)
    return lowest_bits[np.searchsorted(settings.iou_thresholds, iou, side="right")]


def overlapping_pairs(
    detections: DetectionTable,
    rows: NDArray[np.int64],
    objects: ObjectTable,
    object_rows: NDArray[np.int64],
    least_iou: float,
    same_class: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of a detection and an object of its image that reach the least IoU.

    Args:
        detections: of all images.
        rows: ``(D,)`` of the detections, by image, or by class and image with ``same_class``.
        objects: of all images.
        object_rows: ``(G,)`` of the objects, in the same order.
        least_iou: of a pair.
        same_class: leave out pairs of different classes.

    Returns:
        Positions ``(P,)`` in ``rows``, ascending, and in ``object_rows``, and their IoU, best first for each detection.
    """
    first, counts = _objects_of(detections, rows, objects, object_rows, same_class)
    with_objects = np.flatnonzero(counts)
    first, counts = first[with_objects], counts[with_objects]
    chunk = np.cumsum(counts) // PAIRS_AT_A_TIME
    boxes, iscrowd = objects.xywh[object_rows], objects.iscrowd[object_rows]
    empty = np.zeros(0, dtype=np.int64)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = [(empty, empty, np.zeros(0))]
    for start, end in _spans(chunk):
        found = np.repeat(with_objects[start:end], counts[start:end])
        position = ranges(first[start:end], counts[start:end])
        iou = box_iou(detections.xywh[rows[found]], boxes[position], iscrowd[position])
        close = np.flatnonzero(iou >= least_iou)
        parts.append((found[close], position[close], iou[close]))
    found, position, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _best_first(found, position, iou)


def _spans(*keys: Integers) -> list[tuple[int, int]]:
    """Return start and end of each run of equal rows."""
    starts = group_starts(*keys).tolist()
    return list(pairwise(starts))


def _objects_of(
    detections: DetectionTable,
    rows: NDArray[np.int64],
    objects: ObjectTable,
    object_rows: NDArray[np.int64],
    same_class: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each detection, where the objects of its image (and class) start in ``object_rows``, and how many."""
    key, object_key = detections.image[rows].astype(np.int64), objects.image[object_rows].astype(np.int64)
    if same_class:
        num_images = 1 + max(
            (int(images[-1]) for images in (detections.image, objects.image) if len(images)), default=0
        )
        key += detections.label[rows].astype(np.int64) * num_images
        object_key += objects.label[object_rows].astype(np.int64) * num_images
    groups = group_starts(key)
    group_key, sizes = key[groups[:-1]], np.diff(groups)
    first = np.searchsorted(object_key, group_key, side="left")
    counts = np.searchsorted(object_key, group_key, side="right") - first
    return np.repeat(first, sizes), np.repeat(counts, sizes)


def _best_first(
    found: NDArray[np.int64], position: NDArray[np.int64], iou: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Order the pairs of each detection by descending IoU, then by descending position: the later of equals wins."""
    starts = group_starts(found)
    several = np.flatnonzero(np.repeat(np.diff(starts) > 1, np.diff(starts)))
    order = several[np.lexsort((-position[several], -iou[several], found[several]))]
    position[several], iou[several] = position[order], iou[order]
    return found, position, iou


def _assign(
    pairs: tuple[Bits, NDArray[np.int64], NDArray[np.int64]],
    rounds: list[list[slice]],
    object_ignored: Bits,
    iscrowd: NDArray[np.bool_],
    num_detections: int,
) -> tuple[Bits, Bits, NDArray[np.int64]]:
    """Let detections take objects, the r-th candidates of all classes and images in one round.

    Args:
        pairs: ``(P,)`` bits where the IoU of a pair is enough, position of its detection, row of its object.
        rounds: slices of the pairs: the best pair of each detection of a round, the second best, and so on.
        object_ignored: ``(N,)`` bits where an object is ignored.
        iscrowd: ``(N,)``.
        num_detections: ``D``.

    Returns:
        ``(D,)`` bits matched, bits ignored, and the row of the object at bit 0 or -1.
    """
    matched, ignored = np.zeros((2, num_detections), dtype=np.uint64)
    free, crowd_bits = np.full(len(iscrowd), ~np.uint64(0)), np.where(iscrowd, ~np.uint64(0), np.uint64(0))
    chosen = np.full(num_detections, -1, dtype=np.int64)
    for slices in rounds:
        for take_ignored in (False, True):
            for part in slices:  # no two of these pairs share a detection or an object
                passed, detection, row = (column[part] for column in pairs)
                kind = object_ignored[row] if take_ignored else ~object_ignored[row]
                before = matched[detection]
                bits = passed & kind & free[row] & ~before
                matched[detection] = before | bits
                free[row] &= ~bits | crowd_bits[row]
                if take_ignored:
                    ignored[detection] |= bits
                first = (bits & np.uint64(1)) > 0
                chosen[detection[first]] = row[first]
    return matched, ignored, chosen


def _rounds(
    found: NDArray[np.int64], detections: DetectionTable, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[list[slice]]]:
    """Return an order of the pairs and, for each round, the slices of them that can be decided together.

    Round r holds the pairs of the r-th detection with any pair of each class and image; within it come the best pairs
    of the detections, then the second best, and so on.
    """
    if not len(found):
        return found, []
    starts = group_starts(found)
    candidates = rows[found[starts[:-1]]]
    turn = positions_in_groups(group_starts(detections.image[candidates], detections.label[candidates]))
    turn, choice = np.repeat(turn, np.diff(starts)), positions_in_groups(starts)
    order = stable_order(choice, turn)
    turn, choice = turn[order], choice[order]
    rounds: list[list[slice]] = [[] for _ in range(int(turn[-1]) + 1)]
    for start, end in _spans(turn, choice):
        rounds[turn[start]].append(slice(start, end))
    return order, rounds
