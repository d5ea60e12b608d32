"""SuperGradients' ``DetectionMetrics``, for those who compare with its numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.metrics.average_precision import accumulate, mean_of_measured, score_order
from detlit.metrics.collecting import CollectingMetric
from detlit.metrics.matching import Matches, Settings, match
from detlit.metrics.tables import DetectionTable, ObjectTable

__all__ = ["DetectionMetrics"]

SCORE_LEVELS = np.linspace(0.0, 1.0, 101)
"""The thresholds among which SuperGradients looks for the best."""


class DetectionMetrics(CollectingMetric):
    """``mAP@0.50:0.95``, ``Precision@...``, ``Recall@...`` and ``F1@...`` as SuperGradients defines them.

    Each is the mean over IoU thresholds and over the classes with objects; detections of the last three have a score of
    at least ``score_thres``. Arguments keep SuperGradients' names; those about batches and processes
    (``post_prediction_callback``, ``normalize_targets``, ``dist_sync_on_step``, ``accumulate_on_cpu``,
    ``state_dict_prefix``) have no counterpart: a metric gets detections and targets in pixels, and gathers by itself.

    It differs from SuperGradients where that is wrong:

    * an IoU equal to the threshold is a match, as in the COCO protocol;
    * detections of equal score keep their order, so that results repeat;
    * boxes are compared in pixels of the original image, and images without objects count;
    * images repeated by a sampler count once;
    * precision is that of the detections above the score threshold, not the greatest at any higher recall, and the best
      score threshold is chosen by that;
    * what cannot be measured, such as the AP of a class without objects, is -1: not 0, NaN or a perfect score.

    Args:
        num_cls: number of classes, only checked against ``class_names``; ``None`` takes those that there are.
        iou_thres: one IoU threshold, or the first and last of steps of 0.05.
        recall_thres: recall levels of average precision; 0, 0.01, ..., 1 unless given.
        score_thres: of precision, recall and F1.
        top_k_predictions: the best of each image and class count.
        calc_best_score_thresholds: add ``Best_score_threshold``, where the mean F1 is greatest, and
            ``Best_score_threshold_<name>`` of each class.
        include_classwise_ap: add ``AP@..._<name>`` of each class.
        class_names: names of the labels; those of the data in a :class:`~detlit.module.DetectionModule`, otherwise
            ``class_0``, ..., unless given.

    Raises:
        ConfigurationError: IoU thresholds outside (0, 1], no steps of 0.05, recall levels or a score outside [0, 1], no
            detection or class that counts, or, also later, not one name for each class.
    """

    def __init__(
        self,
        num_cls: int | None = None,
        iou_thres: float | tuple[float, float] = (0.5, 0.95),
        recall_thres: Sequence[float] | None = None,
        score_thres: float = 0.1,
        top_k_predictions: int = 100,
        calc_best_score_thresholds: bool = True,
        include_classwise_ap: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> None:
        first, last = (iou_thres, iou_thres) if isinstance(iou_thres, (int, float)) else iou_thres
        if not 0 < first <= last <= 1:
            raise ConfigurationError(f"iou_thres={iou_thres} is no range of IoU: choose numbers above 0, up to 1.")
        if abs((last - first) / 0.05 - round((last - first) / 0.05)) > 1e-6:
            raise ConfigurationError(f"iou_thres={iou_thres} is no range of steps of 0.05: choose such as (0.5, 0.95).")
        if num_cls is not None and num_cls < 1:
            raise ConfigurationError(f"num_cls={num_cls} is no number of classes: leave it out.")
        if recall_thres is not None and not (len(recall_thres) and all(0 <= level <= 1 for level in recall_thres)):
            raise ConfigurationError(f"recall_thres={recall_thres} are no recall levels: choose numbers from 0 to 1.")
        if recall_thres is not None and list(recall_thres) != sorted(recall_thres):
            raise ConfigurationError(f"recall_thres={recall_thres} do not ascend: sort them.")
        if not 0 <= score_thres <= 1:
            raise ConfigurationError(f"score_thres={score_thres} is no threshold: choose a number from 0 to 1.")
        if top_k_predictions < 1:
            raise ConfigurationError(f"top_k_predictions={top_k_predictions} counts nothing: choose 1 or more.")
        super().__init__()
        self.num_cls = num_cls
        self.class_names = None if class_names is None else tuple(class_names)
        self._names(0)
        self.score_thres = score_thres
        self.calc_best_score_thresholds = calc_best_score_thresholds
        self.include_classwise_ap = include_classwise_ap
        self.settings = Settings(
            tuple(np.linspace(first, last, round((last - first) / 0.05) + 1).tolist()),
            Settings().recall_thresholds if recall_thres is None else tuple(recall_thres),
            areas=Settings().areas[:1],
            max_detections=(top_k_predictions,),
        )
        self.iou_range = f"{first:.2f}" if first == last else f"{first:.2f}:{last:.2f}"

    def compute(self) -> dict[str, Tensor]:
        """Return ``{"Precision@0.50:0.95": ..., ...}``, float64 scalars."""
        tables = self.tables()
        labels = (tables.detections.label, tables.objects.label)
        names = self._names(1 + max(int(label.max(initial=-1)) for label in labels))
        matches = match(tables.detections, tables.objects, self.settings)
        evaluation = accumulate(tables.detections, tables.objects, matches, self.settings)
        curves = _Curves(tables.detections, tables.objects, matches, self.settings, len(names))
        at_threshold = curves.at(np.array([self.score_thres]))
        suffix = f"@{self.iou_range}"
        values = {f"{name}{suffix}": _mean(at_threshold[name]) for name in ("Precision", "Recall")}
        values[f"mAP{suffix}"] = mean_of_measured(evaluation.precision)
        values[f"F1{suffix}"] = _mean(at_threshold["F1"])
        if self.include_classwise_ap:
            by_label = dict(zip(evaluation.labels.tolist(), evaluation.average_precision().tolist(), strict=True))
            values |= {f"AP{suffix}_{name}": by_label.get(label, -1.0) for label, name in enumerate(names)}
        if self.calc_best_score_thresholds:
            f1 = curves.at(SCORE_LEVELS)["F1"].mean(axis=0)  # (C', S)
            values["Best_score_threshold"] = float(SCORE_LEVELS[f1.mean(axis=0).argmax()]) if len(f1) else -1.0
            best = dict(zip(curves.labels.tolist(), SCORE_LEVELS[f1.argmax(axis=1)].tolist(), strict=True))
            values |= {f"Best_score_threshold_{name}": best.get(label, -1.0) for label, name in enumerate(names)}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def _names(self, least: int) -> tuple[str, ...]:
        """Return the names of the classes, at least so many where nobody has said how many there are."""
        if self.class_names is None:
            return tuple(f"class_{label}" for label in range(self.num_cls or least))
        if self.num_cls not in (None, len(self.class_names)):
            raise ConfigurationError(
                f"{len(self.class_names)} class names for num_cls={self.num_cls}: give one for each class, or leave "
                "num_cls out."
            )
        return self.class_names


class _Curves:
    """Right detections by IoU threshold, in the order of class and score, to be counted above any score."""

    def __init__(
        self,
        detections: DetectionTable,
        objects: ObjectTable,
        matches: Matches,
        settings: Settings,
        num_classes: int,
    ) -> None:
        order = score_order(detections, matches)
        self.score, self.label = detections.score[matches.rows[order]], detections.label[matches.rows[order]]
        bits = [settings.bit(threshold, 0) for threshold in range(len(settings.iou_thresholds))]
        self.counted = np.array([matches.ignored[order] & bit == 0 for bit in bits])
        self.right = np.array([matches.matched[order] & bit != 0 for bit in bits]) & self.counted
        self.num_objects = np.bincount(objects.label[~objects.iscrowd], minlength=num_classes)
        self.labels = np.flatnonzero(self.num_objects)

    def at(self, thresholds: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return precision, recall and F1 ``(T, C', S)`` of the classes with objects; 0 without any detection."""
        starts, ends = (np.searchsorted(self.label, self.labels, side=side) for side in ("left", "right"))
        levels = -thresholds.astype(self.score.dtype)
        kept = [np.searchsorted(-self.score[a:b], levels, side="right") for a, b in zip(starts, ends, strict=True)]
        ends = starts[:, None] + np.array(kept, dtype=np.int64).reshape(len(starts), len(levels))
        found, hits = (_between(flags, starts, ends) for flags in (self.counted, self.right))
        objects = self.num_objects[self.labels, None]
        return {
            "Precision": hits / np.maximum(found, 1),
            "Recall": hits / objects,
            "F1": 2 * hits / (found + objects),
        }


def _between(flags: NDArray[np.bool_], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``(T, C', S)`` how many of ``flags (T, D)`` are set from ``starts (C',)`` to ``ends (C', S)``."""
    total = np.concatenate([np.zeros((len(flags), 1), dtype=np.int64), np.cumsum(flags, axis=1)], axis=1)
    counts: NDArray[np.int64] = total[:, ends] - total[:, starts][..., None]
    return counts


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else -1.0
