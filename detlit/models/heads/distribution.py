"""What anchor-free heads with box sides as distributions share, https://arxiv.org/abs/2006.04388."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.heads.base import Head
from detlit.ops.anchors import make_anchor_points
from detlit.structures import Level, RawPredictions

__all__ = ["PRIOR_LOGIT", "DistributionHead"]

PRIOR_LOGIT = math.log(0.01 / 0.99)
"""Logit of every class before training: an object is rare, https://arxiv.org/abs/1708.02002, section 4.1."""


class DistributionHead(Head):
    """One module per feature map, which predicts at the cell centres.

    A subclass fills ``levels``: each maps its feature map to class logits ``(B, num_classes, H, W)`` and bin logits
    ``(B, 4 * (reg_max + 1), H, W)``.

    Args:
        strides: input pixels per cell of each feature map.
        num_classes: number of classes.
        reg_max: largest distance from an anchor point to a box side, in strides.

    Raises:
        ConfigurationError: no class.
    """

    levels: nn.ModuleList

    def __init__(self, strides: Sequence[int], num_classes: int, reg_max: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigurationError(f"num_classes={num_classes} leaves nothing to detect: set it to 1 or more.")
        self.num_classes = num_classes
        self.reg_max = reg_max
        self.strides = tuple(strides)

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
