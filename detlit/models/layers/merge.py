"""Sums and concatenations of feature maps as modules, so that quantization can observe where scales meet."""

import torch
from torch import Tensor, nn

__all__ = ["Add", "Concat"]


class Add(nn.Module):
    """The sum of two feature maps of one shape."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``x + y``, shape unchanged."""
        return x + y


class Concat(nn.Module):
    """Feature maps of one size joined along the channels."""

    def forward(self, *features: Tensor) -> Tensor:
        """Join maps ``(B, c_i, H, W)`` to ``(B, sum of c_i, H, W)``."""
        return torch.cat(features, dim=1)
