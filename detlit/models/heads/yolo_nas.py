"""Head of YOLO-NAS: decoupled, anchor-free, with box sides as distributions (https://arxiv.org/abs/2006.04388)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.heads.base import Head
from detlit.models.layers import ConvBNReLU
from detlit.ops.anchors import make_anchor_points
from detlit.structures import Level, RawPredictions

__all__ = ["YoloNASHead"]

PRIOR_PROBABILITY = 0.01
"""Score of every class before training: an object is rare, https://arxiv.org/abs/1708.02002, section 4.1."""


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
        nn.init.constant_(self.cls_pred.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits ``(B, num_classes, H, W)`` and bin logits ``(B, num_bins, H, W)``."""
        x = self.stem(x)
        return self.cls_pred(self.cls_conv(x)), self.reg_pred(self.reg_conv(x))


class YoloNASHead(Head):
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
        super().__init__()
        if num_classes < 1:
            raise ConfigurationError(f"num_classes={num_classes} leaves nothing to detect: set it to 1 or more.")
        if len(hidden_channels) != len(in_channels):
            raise ConfigurationError(
                f"hidden_channels={list(hidden_channels)} does not fit {len(in_channels)} feature maps: "
                "give one entry per feature map."
            )
        self.num_classes = num_classes
        self.reg_max = reg_max
        self.strides = tuple(strides)
        self.levels = nn.ModuleList(
            YoloNASHeadLevel(channels, hidden, num_classes, 4 * (reg_max + 1))
            for channels, hidden in zip(in_channels, hidden_channels, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> RawPredictions:
        """Predict on ``(B, in_channels[i], H / strides[i], W / strides[i])``; the anchors of all maps are joined."""
        cls_maps, reg_maps = zip(*(level(x) for level, x in zip(self.levels, features, strict=True)), strict=True)
        levels = tuple(Level(x.shape[2], x.shape[3], stride) for x, stride in zip(features, self.strides, strict=True))
        # Half precision cannot hold pixel coordinates: bf16 rounds 260.5 to 260.
        dtype = torch.promote_types(features[0].dtype, torch.float32)
        anchor_points, strides = make_anchor_points(levels, features[0].device, dtype)
        return RawPredictions(join_levels(cls_maps), join_levels(reg_maps), anchor_points, strides, levels)


def join_levels(maps: Sequence[Tensor]) -> Tensor:
    """Join maps ``(B, D, H_i, W_i)`` to ``(B, A, D)``, maps one after another, rows from top to bottom."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
