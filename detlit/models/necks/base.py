"""What a detector expects of a neck."""

from collections.abc import Sequence

from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.spec import Recorded

__all__ = ["Neck", "find_levels"]


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


def find_levels(neck: str, strides: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """Return the positions of the ``wanted`` strides among those of a backbone, the last where one occurs twice.

    Finer maps than the neck reads are left over; they lie on the way to the coarser ones.

    Args:
        neck: name of the neck, for the message.
        strides: input pixels per cell of the backbone's feature maps.
        wanted: strides that the neck merges.

    Raises:
        ConfigurationError: a stride is missing, or a coarser one would be computed and not used.
    """
    positions = {stride: i for i, stride in enumerate(strides)}
    if not positions.keys() >= set(wanted) or max(strides) > max(wanted):
        raise ConfigurationError(
            f"{neck} merges feature maps of strides {', '.join(map(str, wanted))}, but the backbone returns "
            f"{', '.join(map(str, strides))}: choose layers of the backbone with these strides and none coarser."
        )
    return tuple(positions[stride] for stride in wanted)
