"""What a detector expects of a head."""

from collections.abc import Sequence

from torch import Tensor, nn

from detlit.spec import Recorded
from detlit.structures import RawPredictions

__all__ = ["Head"]


class Head(Recorded, nn.Module):
    """Base of networks that predict classes and box sides at the cells of feature maps.

    A subclass takes ``in_channels`` and ``strides`` of its feature maps and ``num_classes`` first, which the detector
    fills in, and then its own arguments as keywords.

    Attributes:
        num_classes: number of classes.
        reg_max: largest distance from an anchor point to a box side, in strides.
    """

    num_classes: int
    reg_max: int

    def forward(self, features: Sequence[Tensor]) -> RawPredictions:
        """Predict on the neck's feature maps ``(B, in_channels[i], H / strides[i], W / strides[i])``."""
        raise NotImplementedError
