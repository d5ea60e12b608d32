"""What a detector expects of a neck."""

from collections.abc import Sequence

from torch import Tensor, nn

from detlit.spec import Recorded

__all__ = ["Neck"]


class Neck(Recorded, nn.Module):
    """Base of networks that exchange information between feature maps.

    A subclass takes ``in_channels`` and ``strides`` of its feature maps first, which the detector fills in from the
    backbone, and then its own arguments as keywords.

    Attributes:
        out_channels: channels of each feature map it returns.
        strides: input pixels per cell of each feature map it returns.
    """

    out_channels: tuple[int, ...]
    strides: tuple[int, ...]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map the backbone's maps to one ``(B, out_channels[i], H / strides[i], W / strides[i])`` per stride."""
        raise NotImplementedError
