"""Head of YOLO-NAS: decoupled, anchor-free, with box sides as distributions (https://arxiv.org/abs/2006.04388)."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.heads.distribution import PRIOR_LOGIT, DistributionHead
from detlit.models.layers import ConvBNReLU

__all__ = ["YoloNASHead"]


class YoloNASHeadLevel(nn.Module):
    """Predict on one feature map, with separate branches for classes and box sides.

    Args:
        in_channels: channels of the feature map.
        hidden_channels: channels of both branches.
        num_classes: number of classes.
        num_bins: bins of all four box sides together.
    """

    def __init__(self, in_channels: int, hidden_channels: int, num_classes: int, num_bins: int) -> None:
        super().__init__()
        self.stem = ConvBNReLU(in_channels, hidden_channels, 1)
        self.cls_conv = ConvBNReLU(hidden_channels, hidden_channels)
        self.reg_conv = ConvBNReLU(hidden_channels, hidden_channels)
        self.cls_pred = nn.Conv2d(hidden_channels, num_classes, 1)
        self.reg_pred = nn.Conv2d(hidden_channels, num_bins, 1)
        nn.init.constant_(cast(Tensor, self.cls_pred.bias), PRIOR_LOGIT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits ``(B, num_classes, H, W)`` and bin logits ``(B, num_bins, H, W)``."""
        x = self.stem(x)
        return self.cls_pred(self.cls_conv(x)), self.reg_pred(self.reg_conv(x))


class YoloNASHead(DistributionHead):
    """One :class:`YoloNASHeadLevel` per feature map; the anchor points are the cell centres.

    Args:
        in_channels: channels of each feature map.
        strides: input pixels per cell of each feature map.
        num_classes: number of classes.
        hidden_channels: channels of the branches on each feature map.
        reg_max: largest distance from an anchor point to a box side, in strides.

    Raises:
        ConfigurationError: no class, or another number of ``hidden_channels`` than of feature maps.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        *,
        hidden_channels: Sequence[int],
        reg_max: int = 16,
    ) -> None:
        super().__init__(strides, num_classes, reg_max)
        if len(hidden_channels) != len(in_channels):
            raise ConfigurationError(
                f"hidden_channels={list(hidden_channels)} does not fit {len(in_channels)} feature maps: "
                "give one entry per feature map."
            )
        self.levels = nn.ModuleList(
            YoloNASHeadLevel(channels, hidden, num_classes, 4 * (reg_max + 1))
            for channels, hidden in zip(in_channels, hidden_channels, strict=True)
        )
