"""Precision, recall and the twelve statistics of the COCO protocol (https://cocodataset.org/#detection-eval)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detlit.metrics.matching import Matches, Settings, match
from detlit.metrics.tables import DetectionTable, Integers, ObjectTable, stable_order

__all__ = ["COCO_STATISTICS", "Evaluation", "evaluate", "interpolated_precision", "mean_of_measured"]

Floats = NDArray[np.float64]

COCO_STATISTICS = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large",
    "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large",
)  # fmt: skip
"""The twelve numbers of the COCO summary, in pycocotools' order."""


@dataclass(frozen=True)
class Evaluation:
    """Precision and recall of every class in every setting; -1 where there is no object to measure.

    Attributes:
        settings: IoU thresholds (``T``), recall levels (``R``), areas (``A``) and numbers of detections (``M``).
        labels: ``(C,)`` the classes with objects, ascending.
        precision: ``(T, R, C, A)`` the best precision at each recall level or beyond.
        recall: ``(T, C, A, M)`` share of the objects found.
    """

    settings: Settings
    labels: NDArray[np.int64]
    precision: Floats
    recall: Floats

    def statistics(self) -> Floats:
        """Return ``(12,)`` the numbers of :data:`COCO_STATISTICS`, with the default settings."""
        at_50, at_75 = (np.searchsorted(self.settings.iou_thresholds, level) for level in (0.5, 0.75))
        whole, last = self.precision[..., 0], self.recall[..., -1]
        measured = [whole, whole[at_50], whole[at_75], *(self.precision[..., area] for area in (1, 2, 3))]
        measured += [self.recall[:, :, 0, 0], self.recall[:, :, 0, 1], *(last[..., area] for area in (0, 1, 2, 3))]
        return np.array([mean_of_measured(values) for values in measured])

    def average_precision(self, threshold: int | None = None, area: int = 0) -> Floats:
        """Return ``(C,)`` average precision at one IoU threshold, or the mean of all of them."""
        values = self.precision[..., area]
        mean: Floats = (values if threshold is None else values[threshold : threshold + 1]).mean(axis=(0, 1))
        return mean

    def average_recall(self, limit: int = -1, area: int = 0) -> Floats:
        """Return ``(C,)`` recall with the ``limit``-th number of detections, the mean of all IoU thresholds."""
        mean: Floats = self.recall[:, :, area, limit].mean(axis=0)
        return mean


def mean_of_measured(values: Floats) -> float:
    """Return the mean of the values that are not -1, or -1 if all are."""
    measured = values[values > -1]
    return float(measured.mean()) if len(measured) else -1.0


def evaluate(
    detections: DetectionTable, objects: ObjectTable, settings: Settings | None = None
) -> tuple[Evaluation, Matches]:
    """Score detections by the COCO protocol, equal to pycocotools, and return what they were matched to as well."""
    settings = settings or Settings()
    matches = match(detections, objects, settings)
    return accumulate(detections, objects, matches, settings), matches


def accumulate(detections: DetectionTable, objects: ObjectTable, matches: Matches, settings: Settings) -> Evaluation:
    """Return precision and recall of every class from the matches."""
    labels = np.unique(objects.label).astype(np.int64)
    shape = len(settings.iou_thresholds), len(labels), len(settings.areas)
    precision = np.full((shape[0], len(settings.recall_thresholds), *shape[1:]), -1.0)
    recall = np.full((*shape, len(settings.max_detections)), -1.0)
    order = score_order(detections, matches)
    found = detections.label[matches.rows[order]]
    starts = np.searchsorted(found, labels, side="left")
    ignored, matched, rank = matches.ignored[order], matches.matched[order], matches.rank[order]
    right = matched & ~ignored
    levels = np.array(settings.recall_thresholds)
    for threshold in range(shape[0]):
        for area in range(shape[2]):
            bit = settings.bit(threshold, area)
            counted = objects.label[matches.object_ignored & bit == 0]
            num_objects = np.bincount(counted, minlength=int(labels[-1]) + 1)[labels] if len(labels) else counted
            hits = np.flatnonzero(right & bit != 0)
            position = np.cumsum(ignored & bit == 0, dtype=np.int32)  # with ignored ones left out
            before = np.where(starts > 0, position[starts - 1], 0) if len(position) else np.zeros_like(starts)
            hit_class = np.searchsorted(labels, found[hits])
            ends = np.searchsorted(hit_class, np.arange(len(labels) + 1))
            measured = num_objects > 0
            precision[threshold, :, measured, area] = 0.0
            for index in np.flatnonzero(np.diff(ends)):
                mine = hits[ends[index] : ends[index + 1]]
                precision[threshold, :, index, area] = interpolated_precision(
                    position[mine] - before[index], int(num_objects[index]), levels
                )
            for m, limit in enumerate(settings.max_detections):
                among = np.bincount(hit_class[rank[hits] < limit], minlength=len(labels))
                recall[threshold, measured, area, m] = among[measured] / num_objects[measured]
    return Evaluation(settings, labels, precision, recall)


def score_order(detections: DetectionTable, matches: Matches) -> NDArray[np.int64]:
    """Return ``(D,)`` the order of the matches by class, then descending score; of equals the earlier image first."""
    by_score = np.argsort(-detections.score[matches.rows], kind="stable")
    return by_score[stable_order(detections.label[matches.rows][by_score])]


def interpolated_precision(positions: Integers, num_objects: int, levels: Floats) -> Floats:
    """Return ``(R,)`` the greatest precision at each recall level or a higher one, 0 beyond the greatest recall.

    Precision rises at right detections alone, so the wrong ones between them need not be looked at.

    Args:
        positions: ``(H,)`` place of each right detection among all that count, from 1, ascending.
        num_objects: how many there are to find.
        levels: ``(R,)`` recall levels.
    """
    hits = np.arange(1.0, len(positions) + 1)
    precision = hits / (positions + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(hits / num_objects, levels, side="left")
    values = np.zeros(len(levels))
    reached = index < len(hits)
    values[reached] = precision[index[reached]]
    return values
