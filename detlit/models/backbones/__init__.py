"""Backbones: images to feature maps."""

from detlit.models.backbones.base import Backbone
from detlit.models.backbones.yolo_nas import YoloNASBackbone

__all__ = ["Backbone", "YoloNASBackbone"]
