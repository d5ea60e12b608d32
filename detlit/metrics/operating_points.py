"""Precision, recall and F1 at score thresholds. A detection counts if its score is greater, as in post-prediction."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.metrics.tables import Floats

__all__ = ["OperatingPoint", "ScoreCurve", "best_point", "point_at", "score_curve"]

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class OperatingPoint:
    """What a score threshold makes of the detections.

    Attributes:
        score_threshold: detections of greater score count; NaN if there is nothing to choose one by.
        true_positives: objects found.
        false_positives: detections of no object.
        false_negatives: objects not found.
    """

    score_threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float:
        """Share of the detections that are right; NaN without any."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the objects that are found; NaN without any."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN with neither detections nor objects."""
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        ratios = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {**self.__dict__, **ratios}


@dataclass(frozen=True)
class ScoreCurve:
    """Precision, recall and F1 over score thresholds.

    Attributes:
        score_threshold: ``(S,)`` ascending.
        precision: ``(S,)``; NaN where no detection is left.
        recall: ``(S,)``; NaN without objects.
        f1: ``(S,)``; NaN with neither.
    """

    score_threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return {name: values.tolist() for name, values in self.__dict__.items()}


def score_curve(score: Floats, right: Flags, num_objects: int, thresholds: NDArray[np.float64]) -> ScoreCurve:
    """Return precision, recall and F1 at these thresholds.

    Args:
        score: ``(D,)`` descending.
        right: ``(D,)`` whether a detection has found an object.
        num_objects: how many there are to find.
        thresholds: ``(S,)``.
    """
    kept = np.searchsorted(-score, -thresholds.astype(score.dtype), side="left")
    hits = np.concatenate([[0], np.cumsum(right)])[kept]
    with np.errstate(invalid="ignore"):
        precision, recall = hits / kept, hits / np.float64(num_objects)
        return ScoreCurve(thresholds, precision, recall, 2 * hits / (kept + np.float64(num_objects)))


def point_at(score: Floats, right: Flags, num_objects: int, threshold: float) -> OperatingPoint:
    """Return what one threshold makes of the detections; arguments as in :func:`score_curve`."""
    kept = score > threshold
    hits, count = int(np.count_nonzero(right & kept)), int(np.count_nonzero(kept))
    return OperatingPoint(float(threshold), hits, count - hits, num_objects - hits)


def best_point(score: Floats, right: Flags, num_objects: int) -> OperatingPoint:
    """Return the threshold of the greatest F1, the highest of equals; arguments as in :func:`score_curve`.

    The threshold lies halfway to the next lower score (or to 0), rounded to the type of the scores, so that
    post-prediction, which compares in float32, keeps the very same detections. Without a single right detection it is
    NaN, and nothing counts.
    """
    if not right.any():
        return OperatingPoint(float("nan"), 0, 0, num_objects)
    last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)  # detections of equal score stay together
    hits = np.cumsum(right)[last]
    best = int(np.argmax(2 * hits / (last + 1 + num_objects)))
    return point_at(score, right, num_objects, _between(score, int(last[best])))


def _between(score: Floats, last: int) -> float:
    """Return a threshold that keeps the scores ``(D,)`` up to position ``last`` and drops the rest, in their type."""
    kept, number = score[last], score.dtype.type  # of a number of Python numpy 1 would make a float64
    below = min(number(0), np.nextafter(kept, kept - number(1)))
    dropped = score[last + 1] if last + 1 < len(score) else below
    middle = dropped + (kept - dropped) / number(2)
    return float(middle if middle < kept else dropped)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
