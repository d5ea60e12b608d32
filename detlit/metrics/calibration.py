"""Whether a score says how often detections of that score are right."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.metrics.tables import Floats

__all__ = ["Calibration", "calibrate"]


@dataclass(frozen=True)
class Calibration:
    """Reliability of the scores in bins of equal width, see https://arxiv.org/abs/1706.04599.

    Attributes:
        edges: ``(B + 1,)`` of the bins, from 0 to 1; a score on an edge is in the upper bin.
        count: ``(B,)`` detections in each bin.
        mean_score: ``(B,)`` their mean score; NaN in an empty bin.
        precision: ``(B,)`` share of them that is right; NaN in an empty bin.
        expected_error: mean of ``|precision - mean_score|`` over the detections; NaN without any.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    mean_score: NDArray[np.float64]
    precision: NDArray[np.float64]
    expected_error: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return {name: np.asarray(values).tolist() for name, values in self.__dict__.items()}


def calibrate(score: Floats, right: NDArray[np.bool_], num_bins: int = 10) -> Calibration:
    """Return the reliability of scores ``(D,)`` of detections that are right or not ``(D,)``.

    Scores outside [0, 1] are no probabilities and left out.
    """
    inside = (score >= 0) & (score <= 1)
    score, right = score[inside], right[inside]
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    index = np.clip(np.searchsorted(edges.astype(score.dtype), score, side="right") - 1, 0, num_bins - 1)
    count = np.bincount(index, minlength=num_bins)
    score_sum = np.bincount(index, weights=score, minlength=num_bins)
    hits = np.bincount(index, weights=right, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        mean_score, precision = score_sum / count, hits / count
        error = float(np.abs(hits - score_sum).sum() / np.float64(len(score)))
    return Calibration(edges, count, mean_score, precision, error)
