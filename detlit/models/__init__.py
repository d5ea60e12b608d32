"""Detectors: backbone, neck and head, and presets that put them together."""

from detlit.models.detector import Detector
from detlit.models.presets import yolo_nas_l, yolo_nas_m, yolo_nas_n, yolo_nas_s

__all__ = ["Detector", "yolo_nas_l", "yolo_nas_m", "yolo_nas_n", "yolo_nas_s"]
