"""Training losses of detectors."""

from detlit.losses.base import DetectionLoss
from detlit.losses.ppyoloe import PPYoloELoss

__all__ = ["DetectionLoss", "PPYoloELoss"]
