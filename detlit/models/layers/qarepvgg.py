"""The re-parameterisable block of QARepVGG, https://arxiv.org/abs/2212.01593."""

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from detlit.models.layers.conv import batch_norm
from detlit.models.layers.fusion import Fusable, fold_batch_norm, require_eval

__all__ = ["QARepVGGBlock"]


class QARepVGGBlock(Fusable):
    """Three linear branches that one 3x3 convolution can replace after training.

    ``y = relu(post_bn(bn(conv3x3(x)) + conv1x1(x) + x))``: only the 3x3 branch is normalized before the sum, which
    keeps the fused weights in a range that 8 bits can hold. The identity exists where input and output have one shape.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: step of the convolutions.
    """

    post_bn: nn.BatchNorm2d | nn.Identity

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        # With 2 to 15 channels in channels_last, torch 2.15 on the CPU corrupts the heap in the backward pass of a
        # strided 1x1 convolution. Up to there the pixels it reads are taken out first; for more that would be slower.
        self.sampling = stride if in_channels < 16 else 1
        self.has_identity = stride == 1 and in_channels == out_channels
        conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.branch_3x3 = nn.Sequential(OrderedDict(conv=conv, bn=batch_norm(out_channels)))
        self.branch_1x1 = nn.Conv2d(in_channels, out_channels, 1, stride // self.sampling)
        self.conv: nn.Conv2d | None = None
        self.post_bn = batch_norm(out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        total = self._sum_branches(x) if self.conv is None else self.conv(x)
        return cast(Tensor, self.act(self.post_bn(total)))

    def fuse(self, full: bool) -> None:
        """Replace the branches by one 3x3 convolution with bias that computes the same in evaluation.

        Args:
            full: fold the normalization after the sum too. Without it the block can be trained and quantized further.

        Raises:
            ConfigurationError: the block is in training mode.
        """
        require_eval(self)
        if self.conv is None:
            self.conv = self._merged_branches()
            del self.branch_3x3, self.branch_1x1
        if full and isinstance(self.post_bn, nn.BatchNorm2d):
            self.conv = fold_batch_norm(self.conv, self.post_bn)
            self.post_bn = nn.Identity()

    @torch.no_grad()
    def _merged_branches(self) -> nn.Conv2d:
        conv, bn = self.branch_3x3
        merged = fold_batch_norm(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, bn))
        centre = merged.weight[:, :, 1, 1]
        centre.add_(self.branch_1x1.weight[:, :, 0, 0])
        if self.has_identity:
            centre.diagonal().add_(1)
        cast(Tensor, merged.bias).add_(cast(Tensor, self.branch_1x1.bias))
        return merged

    def _sum_branches(self, x: Tensor) -> Tensor:
        # In place: no branch needs its output for the backward pass, and it saves two tensors of the output's size.
        total: Tensor = self.branch_3x3(x)
        sampled = x if self.sampling == 1 else x[:, :, :: self.sampling, :: self.sampling]
        total.add_(self.branch_1x1(sampled))
        if self.has_identity:
            total.add_(x)
        return total
