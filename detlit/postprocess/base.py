"""What a post-prediction callback is."""

from abc import ABC, abstractmethod

from torch import nn

from detlit.spec import Recorded
from detlit.structures import Detection, RawPredictions

__all__ = ["PostPredictionCallback"]


class PostPredictionCallback(nn.Module, Recorded, ABC):
    """An ``nn.Module``, not a Lightning callback: base of what turns raw predictions into detections."""

    @abstractmethod
    def forward(self, predictions: RawPredictions) -> list[Detection]:
        """Return the detections of each image, best first, in pixels of the network input."""
