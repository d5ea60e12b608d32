"""Metrics of detection quality, measured in pixels of the original images.

Names are imported when first used: the functions on tables need numpy alone.
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
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
