"""Metrics of detection quality, measured in pixels of the original images.

Names are imported when first used: the functions on tables need numpy alone. The metrics come together, since the
parser finds a class by its short name once it exists.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME_OF = {
    "COCO_STATISTICS": "detlit.metrics.average_precision",
    "CocoMeanAveragePrecision": "detlit.metrics.coco",
    "DetectionMetric": "detlit.metrics.base",
    "DetectionMetrics": "detlit.metrics.super_gradients",
    "DetectionTable": "detlit.metrics.tables",
    "ObjectTable": "detlit.metrics.tables",
    "QualityReport": "detlit.metrics.quality",
    "evaluate": "detlit.metrics.average_precision",
    "quality_report": "detlit.metrics.quality",
}

_METRICS = ("CocoMeanAveragePrecision", "DetectionMetric", "DetectionMetrics")

__all__ = [
    "COCO_STATISTICS",
    "CocoMeanAveragePrecision",
    "DetectionMetric",
    "DetectionMetrics",
    "DetectionTable",
    "ObjectTable",
    "QualityReport",
    "evaluate",
    "quality_report",
]

if TYPE_CHECKING:
    from detlit.metrics.average_precision import COCO_STATISTICS, evaluate
    from detlit.metrics.base import DetectionMetric
    from detlit.metrics.coco import CocoMeanAveragePrecision
    from detlit.metrics.quality import QualityReport, quality_report
    from detlit.metrics.super_gradients import DetectionMetrics
    from detlit.metrics.tables import DetectionTable, ObjectTable


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'detlit.metrics' has no attribute {name!r}")
    for public in _METRICS if name in _METRICS else (name,):
        globals()[public] = getattr(import_module(_HOME_OF[public]), public)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
