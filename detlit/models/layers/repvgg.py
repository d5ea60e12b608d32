"""The re-parameterisable block of RepVGG, https://arxiv.org/abs/2101.03697, without its identity branch."""

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from detlit.models.layers.fusion import Fusable, fold_batch_norm, require_eval

__all__ = ["RepVGGBlock"]


class RepVGGBlock(Fusable):
    """Two normalized convolutions that one 3x3 convolution can replace after training.

    ``y = silu(bn(conv3x3(x)) + bn(conv1x1(x)))``, the form PP-YOLOE uses, https://arxiv.org/abs/2203.16250.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.branch_3x3 = make_branch(in_channels, out_channels, 3)
        self.branch_1x1 = make_branch(in_channels, out_channels, 1)
        self.conv: nn.Conv2d | None = None
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        if self.conv is not None:
            return cast(Tensor, self.act(self.conv(x)))
        total: Tensor = self.branch_3x3(x)
        # In place: no branch needs its output for the backward pass, and it saves a tensor of the output's size.
        return cast(Tensor, self.act(total.add_(self.branch_1x1(x))))

    def fuse(self, full: bool = False) -> None:
        """Replace both branches by one 3x3 convolution with bias that computes the same in evaluation.

        Args:
            full: makes no difference, because no normalization is left either way.

        Raises:
            ConfigurationError: the block is in training mode.
        """
        require_eval(self)
        if self.conv is None:
            self.conv = self._merged_branches()
            del self.branch_3x3, self.branch_1x1

    @torch.no_grad()
    def _merged_branches(self) -> nn.Conv2d:
        merged, pointwise = (
            fold_batch_norm(cast(nn.Conv2d, branch.conv), cast(nn.BatchNorm2d, branch.bn))
            for branch in (self.branch_3x3, self.branch_1x1)
        )
        merged.weight[:, :, 1, 1].add_(pointwise.weight[:, :, 0, 0])
        cast(Tensor, merged.bias).add_(cast(Tensor, pointwise.bias))
        return merged


def make_branch(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Return a normalized convolution that keeps the size."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))
