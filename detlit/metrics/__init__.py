"""Metrics of detection quality, measured in pixels of the original images."""

from detlit.metrics.base import DetectionMetric
from detlit.metrics.coco import COCO_STATISTICS, CocoMeanAveragePrecision

__all__ = ["COCO_STATISTICS", "CocoMeanAveragePrecision", "DetectionMetric"]
