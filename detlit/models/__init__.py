"""Detectors: backbone, neck and head, and presets that put them together."""

from detlit.models.detector import Detector
from detlit.models.presets import (
    ppyoloe_l,
    ppyoloe_m,
    ppyoloe_s,
    ppyoloe_x,
    yolo_nas_l,
    yolo_nas_m,
    yolo_nas_n,
    yolo_nas_s,
)

__all__ = [
    "Detector",
    "ppyoloe_l",
    "ppyoloe_m",
    "ppyoloe_s",
    "ppyoloe_x",
    "yolo_nas_l",
    "yolo_nas_m",
    "yolo_nas_n",
    "yolo_nas_s",
]
