"""Mean average precision by the COCO protocol (https://cocodataset.org/#detection-eval), equal to pycocotools."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.metrics.average_precision import COCO_STATISTICS, Evaluation, evaluate
from detlit.metrics.collecting import CollectingMetric, Tables
from detlit.metrics.matching import Matches
from detlit.metrics.pycocotools_backend import evaluate_with_pycocotools
from detlit.metrics.quality import QualityReport, best_points, quality_report, thresholds_of

__all__ = ["COCO_STATISTICS", "CocoMeanAveragePrecision"]


class CocoMeanAveragePrecision(CollectingMetric):
    """The twelve COCO statistics over every image of every rank, each image counted once.

    Ground truth and areas stay float64 in original pixels, crowds and degenerate boxes included, because the protocol
    counts them. Images without objects count: what is detected on them is a false positive. Statistics without any
    ground truth to measure (no small objects, say) are -1, as pycocotools defines them.

    Args:
        per_class: also return ``map/<name>`` and ``mar_100/<name>`` of each class. :meth:`evaluation` has them anyway.
        class_names: names of the labels; ``class_0``, ... unless given.
        backend: ``"detlit"``, or ``"pycocotools"`` for a cross-check that takes a hundred times as long.
    """

    def __init__(
        self,
        per_class: bool = False,
        class_names: Sequence[str] | None = None,
        backend: Literal["detlit", "pycocotools"] = "detlit",
    ) -> None:
        if backend not in ("detlit", "pycocotools"):
            raise ConfigurationError(f"backend={backend!r} is unknown: choose 'detlit' or 'pycocotools'.")
        super().__init__()
        self.per_class = per_class
        self.class_names = None if class_names is None else tuple(class_names)
        self.backend = backend

    def _clear(self) -> None:
        super()._clear()
        self._evaluated: tuple[Evaluation, Matches] | None = None
        self._evaluated_tables: Tables | None = None

    def compute(self) -> dict[str, Tensor]:
        """Return ``{"map": ..., "map_50": ..., ...}``, float64 scalars; the keys are :data:`COCO_STATISTICS`.

        With ``per_class``, there follow ``map/<name>`` and ``mar_100/<name>`` of every class; -1 for one without
        objects.
        """
        evaluation = self.evaluation()
        values = dict(zip(COCO_STATISTICS, evaluation.statistics().tolist(), strict=True))
        if self.per_class:
            labels = evaluation.labels.tolist()
            precision = dict(zip(labels, evaluation.average_precision().tolist(), strict=True))
            recall = dict(zip(labels, evaluation.average_recall().tolist(), strict=True))
            for label, name in enumerate(self._names(1 + max(labels, default=-1))):
                values[f"map/{name}"], values[f"mar_100/{name}"] = precision.get(label, -1.0), recall.get(label, -1.0)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def evaluation(self) -> Evaluation:
        """Return precision and recall of every class, IoU threshold and size; every rank must call it."""
        if self.backend == "pycocotools":
            tables = self.tables()
            return evaluate_with_pycocotools(tables.detections, tables.objects)
        return self._evaluate()[0]

    def compute_report(self, score_threshold: float | None = None) -> QualityReport:
        """Return all there is to say about the detections: curves, confusion, errors, sizes; every rank must call it.

        Call it before :meth:`reset`; it shares the gathered rows and the matching with :meth:`compute`.

        Args:
            score_threshold: where to look; where F1 over all classes is greatest unless given.
        """
        tables = self.tables()
        return quality_report(
            tables.detections,
            tables.objects,
            num_images=len(tables.dataset_index),
            class_names=self.class_names or (),
            score_threshold=score_threshold,
            dataset_index=tables.dataset_index,
            evaluated=self._evaluate(),
        )

    def best_score_threshold(self) -> float | None:
        """Return the score threshold of the greatest F1 at IoU 0.5 over all classes, ``None`` if nothing is right.

        Every rank must call it.
        """
        tables = self.tables()
        point = best_points(tables.detections, tables.objects, self._evaluate()[1])[0]
        return point.score_threshold if point.true_positives else None

    def best_score_thresholds(self) -> tuple[float, ...]:
        """Return the score threshold of the greatest F1 at IoU 0.5 of each class; every rank must call it.

        A class that nothing right is found of has that of all classes together; NaN where nothing is right at all.
        """
        tables = self.tables()
        matches = self._evaluate()[1]
        return thresholds_of(*best_points(tables.detections, tables.objects, matches, len(self.class_names or ())))

    def _evaluate(self) -> tuple[Evaluation, Matches]:
        """Return evaluation and matches, computed once for all that ask."""
        tables = self.tables()
        if self._evaluated is None or self._evaluated_tables is not tables:
            self._evaluated, self._evaluated_tables = evaluate(tables.detections, tables.objects), tables
        return self._evaluated

    def _names(self, least: int) -> tuple[str, ...]:
        """Return the names of the classes, at least so many."""
        names = self.class_names or ()
        return names + tuple(f"class_{label}" for label in range(len(names), least))
