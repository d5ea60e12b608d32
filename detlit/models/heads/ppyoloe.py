"""Head of PP-YOLOE, https://arxiv.org/abs/2203.16250: the task-aligned head of TOOD made cheap."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from detlit.models.heads.distribution import PRIOR_LOGIT, DistributionHead
from detlit.models.layers import Add, ConvBNSiLU

__all__ = ["PPYoloEHead"]


class AttentionStem(nn.Module):
    """Channels weighed by their mean over the image, then mixed: ``y = conv1x1(x * sigmoid(fc(mean)))``.

    Args:
        channels: channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        self.conv = ConvBNSiLU(channels, channels, 1)
        nn.init.normal_(self.fc.weight, std=0.001)

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` and its mean ``(B, channels, 1, 1)`` to the shape of the former."""
        return cast(Tensor, self.conv(x * self.fc(mean).sigmoid()))


class PPYoloEHeadLevel(nn.Module):
    """Predict on one feature map, with separate attention for classes and box sides.

    Args:
        channels: channels of the feature map.
        num_classes: number of classes.
        num_bins: bins of all four box sides together.
    """

    def __init__(self, channels: int, num_classes: int, num_bins: int) -> None:
        super().__init__()
        self.cls_stem = AttentionStem(channels)
        self.reg_stem = AttentionStem(channels)
        self.add = Add()
        self.cls_pred = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.reg_pred = nn.Conv2d(channels, num_bins, 3, padding=1)
        # All anchor points start alike, with rare classes and every distance equally likely.
        for pred, bias in ((self.cls_pred, PRIOR_LOGIT), (self.reg_pred, 1.0)):
            nn.init.zeros_(pred.weight)
            nn.init.constant_(cast(Tensor, pred.bias), bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits ``(B, num_classes, H, W)`` and bin logits ``(B, num_bins, H, W)``."""
        mean = x.mean((2, 3), keepdim=True)
        return self.cls_pred(self.add(self.cls_stem(x, mean), x)), self.reg_pred(self.reg_stem(x, mean))


class PPYoloEHead(DistributionHead):
    """One :class:`PPYoloEHeadLevel` per feature map; the anchor points are the cell centres.

    Args:
        in_channels: channels of each feature map.
        strides: input pixels per cell of each feature map.
        num_classes: number of classes.
        reg_max: largest distance from an anchor point to a box side, in strides.

    Raises:
        ConfigurationError: no class.
    """

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], num_classes: int, *, reg_max: int = 16
    ) -> None:
        super().__init__(strides, num_classes, reg_max)
        self.levels = nn.ModuleList(
            PPYoloEHeadLevel(channels, num_classes, 4 * (reg_max + 1)) for channels in in_channels
        )
