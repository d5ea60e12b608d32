"""What goes wrong, and how much each kind of error costs: TIDE, https://arxiv.org/abs/2008.08115."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.metrics.average_precision import interpolated_precision, score_order
from detlit.metrics.matching import Matches, Settings, overlapping_pairs
from detlit.metrics.tables import DetectionTable, Floats, ObjectTable, group_starts, stable_order

__all__ = ["ERROR_KINDS", "ErrorBreakdown", "break_down_errors"]

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

BACKGROUND_IOU, MATCH_IOU = 0.1, 0.5

ERROR_KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""The kinds of error. All but the last are wrong detections, tried in the order of :func:`_kinds`."""

_CORRECTIONS = (*ERROR_KINDS, "false_positives", "false_negatives")

RIGHT, IGNORED = -1, -2
"""Kinds of detections that are no errors."""


@dataclass(frozen=True)
class ErrorBreakdown:
    """The errors at IoU 0.5, by kind.

    Attributes:
        counts: how many there are of each of :data:`ERROR_KINDS`.
        counts_above: the same with detections above the score threshold alone; objects that only lower ones find are
            missed.
        ap_50: average precision at IoU 0.5, the mean of all classes with objects; -1 without any.
        ap_gain: by how much it would rise if the errors of each kind were corrected; also of all
            ``false_positives`` and all ``false_negatives``.
        rows: ``(D,)`` rows of the table of detections, by class and descending score.
        kind: ``(D,)`` index into :data:`ERROR_KINDS`, -1 for a right detection, -2 for one that does not count.
        object_row: ``(D,)`` row of the object that a detection finds, mistakes or repeats, or -1.
        missed: rows of the objects that nothing finds, even with its class or place corrected.
    """

    counts: dict[str, int]
    counts_above: dict[str, int]
    ap_50: float
    ap_gain: dict[str, float]
    rows: Integers
    kind: Integers
    object_row: Integers
    missed: Integers

    def to_dict(self) -> dict[str, Any]:
        """Return counts and gains as plain data."""
        return {name: getattr(self, name) for name in ("counts", "counts_above", "ap_50", "ap_gain")}


def break_down_errors(
    detections: DetectionTable, objects: ObjectTable, matches: Matches, score_threshold: float
) -> ErrorBreakdown:
    """Find what is wrong with each detection and object, and what average precision would gain without it.

    A detection that the COCO protocol finds wrong, with no more than crowds left out of the objects, is of the kind

    * localisation: its IoU with an object of its class is at least 0.1, but below 0.5;
    * else classification: its IoU with an object of another class is at least 0.5;
    * else duplicate: its IoU with an object of its class is at least 0.5, but a better detection took that;
    * else both: its IoU with an object of another class is at least 0.1;
    * else background.

    An object is missed if no detection finds it and none of the first two kinds is about it. Corrected, the best
    detection of the first two kinds about an object that is not found becomes right and the others disappear, as do
    those of the other kinds; missed objects no longer count, and a class of which none is left is perfect.

    Args:
        detections: of all images.
        objects: of all images.
        matches: of the two, with the lowest IoU threshold 0.5 and the first area range unlimited.
        score_threshold: for ``counts_above``.
    """
    order = score_order(detections, matches)
    rows, found = matches.rows[order], matches.object_row[order]
    counted = matches.ignored[order] & np.uint64(1) == 0
    objects_counted = matches.object_ignored & np.uint64(1) == 0
    wrong = np.flatnonzero(counted & (found < 0))
    kind = np.where(counted, RIGHT, IGNORED)
    about = np.where(counted, found, -1)
    kind[wrong], about[wrong] = _kinds(detections, rows[wrong], objects, np.flatnonzero(objects_counted))

    above = detections.score[rows] > score_threshold
    missed = _missed(kind, about, objects_counted)
    gains = _Gains(detections, objects, rows[counted], kind[counted], about[counted], objects_counted)
    base = gains.average_precision()
    ap_gain = {name: gains.without(name, missed) - base if base >= 0 else 0.0 for name in _CORRECTIONS}
    return ErrorBreakdown(
        _count(kind, missed),
        _count(kind[above], _missed(kind[above], about[above], objects_counted)),
        base,
        ap_gain,
        rows,
        kind,
        about,
        missed,
    )


def _count(kind: Integers, missed: Integers) -> dict[str, int]:
    wrong = np.bincount(kind[kind >= 0], minlength=len(ERROR_KINDS)).tolist()
    return {**dict(zip(ERROR_KINDS, wrong, strict=True)), "missed": len(missed)}


def _missed(kind: Integers, about: Integers, objects_counted: Flags) -> Integers:
    """Return the rows of the objects that nothing finds, mistakes for another class or nearly finds."""
    unseen = objects_counted.copy()
    unseen[about[(kind == RIGHT) | _is(kind, "classification") | _is(kind, "localisation")]] = False
    return np.flatnonzero(unseen)


def _is(kind: Integers, name: str) -> Flags:
    flags: Flags = kind == ERROR_KINDS.index(name)
    return flags


def _kinds(
    detections: DetectionTable, rows: Integers, objects: ObjectTable, object_rows: Integers
) -> tuple[Integers, Integers]:
    """Return kind ``(W,)`` and object or -1 ``(W,)`` of wrong detections."""
    in_images = stable_order(detections.image[rows])
    found, position, iou = overlapping_pairs(detections, rows[in_images], objects, object_rows, BACKGROUND_IOU)
    found, row = in_images[found], object_rows[position]
    same = detections.label[rows[found]] == objects.label[row]
    own_iou, own = _greatest(found[same], iou[same], row[same], len(rows))
    other_iou, other = _greatest(found[~same], iou[~same], row[~same], len(rows))
    conditions = {
        "localisation": (own_iou >= BACKGROUND_IOU) & (own_iou < MATCH_IOU),
        "classification": other_iou >= MATCH_IOU,
        "duplicate": own_iou >= MATCH_IOU,
        "both": other_iou >= BACKGROUND_IOU,
    }
    numbers = [ERROR_KINDS.index(name) for name in conditions]
    kind = np.select(list(conditions.values()), numbers, ERROR_KINDS.index("background"))
    return kind, np.select(list(conditions.values()), [own, other, own, other], -1)


def _greatest(found: Integers, iou: Floats, row: Integers, count: int) -> tuple[NDArray[np.float64], Integers]:
    """Return ``(count,)`` the greatest IoU of each detection, 0 without any, and the object; pairs come best first."""
    first = group_starts(found)[:-1]
    greatest, best = np.zeros(count), np.full(count, -1, dtype=np.int64)
    greatest[found[first]], best[found[first]] = iou[first], row[first]
    return greatest, best


class _Gains:
    """Average precision at IoU 0.5 of detections in the order of class and score, as they are and corrected."""

    def __init__(
        self,
        detections: DetectionTable,
        objects: ObjectTable,
        rows: Integers,
        kind: Integers,
        about: Integers,
        objects_counted: Flags,
    ) -> None:
        self.image, self.label, self.score = detections.image[rows], detections.label[rows], detections.score[rows]
        self.kind, self.about, self.object_label = kind, about, objects.label
        self.right = kind == RIGHT
        self.num_classes = 1 + int(max(self.label.max(initial=-1), objects.label.max(initial=-1)))
        self.num_objects = self._count_objects(np.flatnonzero(objects_counted))
        self.unfound = objects_counted.copy()
        self.unfound[about[self.right]] = False

    def _count_objects(self, rows: Integers) -> Integers:
        return np.bincount(self.object_label[rows], minlength=self.num_classes)

    def without(self, name: str, missed: Integers) -> float:
        """Return average precision with the errors of one kind corrected."""
        if name == "missed":
            return self.average_precision(num_left=self.num_objects - self._count_objects(missed))
        if name == "false_negatives":
            return self.average_precision(num_left=self.num_objects - self._count_objects(np.flatnonzero(self.unfound)))
        if name == "false_positives":
            return self.average_precision(kept=self.right)
        mistaken = _is(self.kind, name)
        if name not in ("classification", "localisation"):
            return self.average_precision(kept=~mistaken)
        corrected = self._best_about_unfound(np.flatnonzero(mistaken))
        label, right = self.label.copy(), self.right.copy()
        label[corrected], right[corrected] = self.object_label[self.about[corrected]], True
        return self.average_precision(label, right, kept=right | ~mistaken)

    def _best_about_unfound(self, wrong: Integers) -> Integers:
        """Return those of the wrong detections that are the best about an object that none finds."""
        wrong = wrong[self.unfound[self.about[wrong]]]
        wrong = wrong[np.argsort(-self.score[wrong], kind="stable")]
        return wrong[np.unique(self.about[wrong], return_index=True)[1]]

    def average_precision(
        self,
        label: NDArray[Any] | None = None,
        right: Flags | None = None,
        kept: Flags | None = None,
        num_left: Integers | None = None,
    ) -> float:
        """Return the mean over the classes with objects, -1 without any.

        Args:
            label: ``(D,)`` in place of the labels of the detections.
            right: ``(D,)`` in place of which of them are right.
            kept: ``(D,)`` which of them there are.
            num_left: ``(C,)`` in place of the number of objects; a class with none left is perfect.
        """
        label = self.label if label is None else label
        rows = np.arange(len(label)) if kept is None else np.flatnonzero(kept)
        if label is not self.label:
            rows = rows[stable_order(self.image[rows])]
            rows = rows[np.argsort(-self.score[rows], kind="stable")]
            rows = rows[stable_order(label[rows])]
        right = (self.right if right is None else right)[rows]
        num_left = self.num_objects if num_left is None else num_left
        starts = np.searchsorted(label[rows], np.arange(self.num_classes + 1))
        levels = np.array(Settings().recall_thresholds)
        values = [
            interpolated_precision(1 + np.flatnonzero(right[start:end]), int(left), levels).mean() if left else 1.0
            for start, end, left, objects in zip(starts[:-1], starts[1:], num_left, self.num_objects, strict=True)
            if objects
        ]
        return float(np.mean(values)) if values else -1.0
