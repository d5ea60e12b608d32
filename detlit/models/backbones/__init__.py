"""Backbones: images to feature maps."""

from detlit.models.backbones.base import Backbone
from detlit.models.backbones.csp_resnet import CSPResNet
from detlit.models.backbones.timm import TimmBackbone
from detlit.models.backbones.torchvision import TorchvisionBackbone
from detlit.models.backbones.yolo_nas import YoloNASBackbone

__all__ = ["Backbone", "CSPResNet", "TimmBackbone", "TorchvisionBackbone", "YoloNASBackbone"]
