"""What a detection loss is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import nn

from detlit.spec import Recorded
from detlit.structures import Batch, LossOutput, RawPredictions, Target

__all__ = ["DetectionLoss"]


class DetectionLoss(nn.Module, Recorded, ABC):
    """Base of the losses a :class:`~detlit.module.DetectionModule` can train with."""

    @abstractmethod
    def forward(self, predictions: RawPredictions, batch: Batch | Sequence[Target]) -> LossOutput:
        """Return the loss of a batch.

        Args:
            predictions: what the detector returned.
            batch: the ground truth, a batch or one target per image; of a target, ``boxes`` and ``labels`` are enough.
        """
