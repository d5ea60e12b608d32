"""Necks: feature maps that know of each other."""

from detlit.models.necks.base import Neck
from detlit.models.necks.ppyoloe import PPYoloENeck
from detlit.models.necks.yolo_nas import YoloNASNeck

__all__ = ["Neck", "PPYoloENeck", "YoloNASNeck"]
