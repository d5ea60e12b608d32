"""Everything a report says about a detector, from one matching of its detections to the ground truth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.errors import ConfigurationError
from detlit.metrics.average_precision import (
    COCO_STATISTICS,
    Evaluation,
    evaluate,
    mean_of_measured,
    score_order,
)
from detlit.metrics.calibration import Calibration, calibrate
from detlit.metrics.confusion import confusion_matrix
from detlit.metrics.errors import ErrorBreakdown, break_down_errors
from detlit.metrics.matching import Matches
from detlit.metrics.operating_points import OperatingPoint, ScoreCurve, best_point, point_at, score_curve
from detlit.metrics.tables import DetectionTable, ObjectTable

__all__ = ["ClassQuality", "QualityReport", "SizeQuality", "best_points", "quality_report", "thresholds_of"]

SIZES = ("small", "medium", "large")
"""Objects below 32 x 32 pixels, up to 96 x 96, and larger ones."""


@dataclass(frozen=True)
class SizeQuality:
    """Objects of one size, or of all sizes; -1 without any.

    Attributes:
        num_objects: without crowds.
        ap: average precision, the mean of IoU 0.50 to 0.95.
        ap_50: the same at IoU 0.5.
        ap_75: the same at IoU 0.75.
        ar: average recall with 100 detections, the mean of IoU 0.50 to 0.95.
    """

    num_objects: int
    ap: float
    ap_50: float
    ap_75: float
    ar: float


@dataclass(frozen=True)
class ClassQuality:
    """One class, or all of them.

    Attributes:
        name: of the class; ``"all"`` for all.
        num_detections: without those of crowds.
        average: over objects of all sizes; for all classes the mean of those with objects.
        sizes: the same for the objects of each of :data:`SIZES`.
        at_threshold: at the report's score threshold; for all classes their detections and objects together.
        best: at the threshold of the greatest F1.
        curve: over 101 score thresholds.
        precision_at_recall: ``(101,)`` greatest precision at recall 0, 0.01, ... or more; -1 without objects.
    """

    name: str
    num_detections: int
    average: SizeQuality
    sizes: dict[str, SizeQuality]
    at_threshold: OperatingPoint
    best: OperatingPoint
    curve: ScoreCurve
    precision_at_recall: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return {
            "name": self.name,
            "num_detections": self.num_detections,
            **self.average.__dict__,
            "sizes": {size: dict(quality.__dict__) for size, quality in self.sizes.items()},
            "at_threshold": self.at_threshold.to_dict(),
            "best": self.best.to_dict(),
            "curve": self.curve.to_dict(),
            "precision_at_recall": self.precision_at_recall.tolist(),
        }


@dataclass(frozen=True)
class QualityReport:
    """How good detections are; right and wrong are those of the COCO protocol at IoU 0.5 where nothing else is said.

    Attributes:
        statistics: the twelve of :data:`~detlit.metrics.average_precision.COCO_STATISTICS`.
        num_images: with and without objects.
        score_threshold: of ``at_threshold``, the confusion matrix and ``errors.counts_above``.
        overall: of all classes.
        classes: in the order of the labels.
        confusion: ``(C + 1, C + 1)``, see :func:`~detlit.metrics.confusion.confusion_matrix`.
        errors: what goes wrong, and what it costs.
        calibration: whether the scores can be taken for probabilities.
        detections: what was scored; ``errors.rows`` are rows of it. Not in :meth:`to_dict`.
        objects: the ground truth; ``errors.object_row`` are rows of it. Not in :meth:`to_dict`.
        dataset_index: ``(I,)`` where each image is in the data set, -1 if unknown. Not in :meth:`to_dict`.
    """

    statistics: dict[str, float]
    num_images: int
    score_threshold: float
    overall: ClassQuality
    classes: tuple[ClassQuality, ...]
    confusion: NDArray[np.int64]
    errors: ErrorBreakdown
    calibration: Calibration
    detections: DetectionTable
    objects: ObjectTable
    dataset_index: NDArray[np.int64]

    @property
    def best_score_thresholds(self) -> tuple[float, ...]:
        """The threshold of the greatest F1 of each class; of all of them for a class that nothing right is found of."""
        return thresholds_of(self.overall.best, [quality.best for quality in self.classes])

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data for a JSON file; what cannot be measured is ``None``."""
        plain: dict[str, Any] = _without_nan(
            {
                "statistics": self.statistics,
                "num_images": self.num_images,
                "score_threshold": self.score_threshold,
                "best_score_thresholds": list(self.best_score_thresholds),
                "overall": self.overall.to_dict(),
                "classes": [quality.to_dict() for quality in self.classes],
                "confusion": self.confusion.tolist(),
                "errors": self.errors.to_dict(),
                "calibration": self.calibration.to_dict(),
            }
        )
        return plain


def quality_report(
    detections: DetectionTable,
    objects: ObjectTable,
    *,
    num_images: int,
    class_names: Sequence[str] = (),
    score_threshold: float | None = None,
    dataset_index: NDArray[np.int64] | None = None,
    evaluated: tuple[Evaluation, Matches] | None = None,
) -> QualityReport:
    """Return all there is to say about detections.

    Args:
        detections: of all images.
        objects: of all images.
        num_images: with those that have neither.
        class_names: names of the labels; ``class_0``, ... for those beyond.
        score_threshold: where to look; where F1 over all classes is greatest unless given.
        dataset_index: ``(num_images,)`` where the images are in their data set.
        evaluated: what :func:`~detlit.metrics.average_precision.evaluate` returned for the two tables, if it has run.

    Raises:
        ConfigurationError: a score threshold outside [0, 1].
    """
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ConfigurationError(f"score_threshold={score_threshold} is no threshold: choose a number between 0 and 1.")
    evaluation, matches = evaluated or evaluate(detections, objects)
    judged = _Judged(detections, objects, matches, len(class_names))
    if score_threshold is None:
        best = judged.best().score_threshold
        score_threshold = 0.5 if math.isnan(best) else best
    names = (*class_names, *(f"class_{label}" for label in range(len(class_names), judged.num_classes)))
    return QualityReport(
        dict(zip(COCO_STATISTICS, evaluation.statistics().tolist(), strict=True)),
        num_images,
        score_threshold,
        _class_quality("all", None, evaluation, judged, score_threshold),
        tuple(_class_quality(name, label, evaluation, judged, score_threshold) for label, name in enumerate(names)),
        confusion_matrix(detections, objects, matches, judged.num_classes, score_threshold),
        break_down_errors(detections, objects, matches, score_threshold),
        calibrate(judged.score, judged.right),
        detections,
        objects,
        np.full(num_images, -1, dtype=np.int64) if dataset_index is None else dataset_index,
    )


def best_points(
    detections: DetectionTable, objects: ObjectTable, matches: Matches, num_classes: int = 0
) -> tuple[OperatingPoint, list[OperatingPoint]]:
    """Return where F1 at IoU 0.5 is greatest, over all classes together and for each of at least ``num_classes``."""
    judged = _Judged(detections, objects, matches, num_classes)
    return judged.best(), [judged.best(label) for label in range(judged.num_classes)]


def thresholds_of(overall: OperatingPoint, classes: Sequence[OperatingPoint]) -> tuple[float, ...]:
    """Return the threshold of each class, and the overall one for those that have none."""
    points = [overall if math.isnan(point.score_threshold) else point for point in classes]
    return tuple(point.score_threshold for point in points)


class _Judged:
    """Detections that count, right or wrong at IoU 0.5, with the number of objects of each class and size."""

    def __init__(self, detections: DetectionTable, objects: ObjectTable, matches: Matches, num_classes: int) -> None:
        order = score_order(detections, matches)
        order = order[matches.ignored[order] & np.uint64(1) == 0]
        rows = matches.rows[order]
        self.score, self.right = detections.score[rows], matches.object_row[order] >= 0
        label = detections.label[rows]
        self.num_classes = max(num_classes, 1 + int(max(label.max(initial=-1), objects.label.max(initial=-1))))
        self.starts = np.searchsorted(label, np.arange(self.num_classes + 1))
        self.by_score = np.argsort(-self.score, kind="stable")
        counted = [matches.object_ignored & np.uint64(1 << area) == 0 for area in range(1 + len(SIZES))]
        self.num_objects = np.array([np.bincount(objects.label[c], minlength=self.num_classes) for c in counted])

    def of(self, label: int | None) -> tuple[Any, Any, int]:
        """Return score and whether it is right, best first, and the number of objects; of a class or, ``None``, all."""
        if label is None:
            return self.score[self.by_score], self.right[self.by_score], int(self.num_objects[0].sum())
        mine = slice(self.starts[label], self.starts[label + 1])
        return self.score[mine], self.right[mine], int(self.num_objects[0, label])

    def best(self, label: int | None = None) -> OperatingPoint:
        """Return the point of the greatest F1 of a class, or of all."""
        return best_point(*self.of(label))


def _class_quality(
    name: str, label: int | None, evaluation: Evaluation, judged: _Judged, score_threshold: float
) -> ClassQuality:
    """Return the quality of a class, or of all with the label ``None``."""
    columns = np.arange(len(evaluation.labels)) if label is None else np.flatnonzero(evaluation.labels == label)
    score, right, num_objects = judged.of(label)
    at_50 = evaluation.precision[0][:, columns, 0]
    measured = at_50[:, at_50[0] > -1]
    return ClassQuality(
        name,
        len(score),
        _size_quality(0, label, columns, evaluation, judged),
        {size: _size_quality(area, label, columns, evaluation, judged) for area, size in enumerate(SIZES, start=1)},
        point_at(score, right, num_objects, score_threshold),
        best_point(score, right, num_objects),
        score_curve(score, right, num_objects, np.linspace(0.0, 1.0, 101)),
        measured.mean(axis=1) if measured.size else np.full(len(at_50), -1.0),
    )


def _size_quality(
    area: int, label: int | None, columns: NDArray[np.int64], evaluation: Evaluation, judged: _Judged
) -> SizeQuality:
    """Return the quality in an area range, of some columns of the evaluation."""
    precision = evaluation.precision[:, :, columns, area]
    num_objects = judged.num_objects[area]
    return SizeQuality(
        int(num_objects.sum() if label is None else num_objects[label]),
        mean_of_measured(precision),
        mean_of_measured(precision[0]),
        mean_of_measured(precision[5]),
        mean_of_measured(evaluation.recall[:, columns, area, -1]),
    )


def _without_nan(value: Any) -> Any:
    """Return plain data with ``None`` for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
