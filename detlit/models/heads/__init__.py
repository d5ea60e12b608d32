"""Heads: feature maps to raw predictions."""

from detlit.models.heads.base import Head
from detlit.models.heads.distribution import DistributionHead
from detlit.models.heads.ppyoloe import PPYoloEHead
from detlit.models.heads.yolo_nas import YoloNASHead

__all__ = ["DistributionHead", "Head", "PPYoloEHead", "YoloNASHead"]
