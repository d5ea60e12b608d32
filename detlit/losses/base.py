"""What a detection loss is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from detlit.spec import Recorded
from detlit.structures import Batch, LossOutput, RawPredictions, Target

__all__ = ["DetectionLoss", "refuse_second_order"]


def refuse_second_order() -> None:
    """Raise, in a hand-written backward pass, if its result is to be differentiated again.

    Without this the second derivative would silently lack a part.
    """
    if torch.is_grad_enabled():  # which it is in a backward pass only for that
        raise RuntimeError("detlit's loss can be differentiated once: call backward without create_graph=True.")


class DetectionLoss(nn.Module, Recorded, ABC):
    """Base of the losses a :class:`~detlit.module.DetectionModule` can train with."""

    @abstractmethod
    def forward(self, predictions: RawPredictions, batch: Batch | Sequence[Target]) -> LossOutput:
        """Return the loss of a batch.

        Args:
            predictions: what the detector returned.
            batch: the ground truth, a batch or one target per image; of a target, ``boxes`` and ``labels`` are enough.
        """
