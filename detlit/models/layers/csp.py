"""Cross-stage partial layer of YOLO-NAS, after CSPNet, https://arxiv.org/abs/1911.11929."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from detlit.models.layers.conv import ConvBNReLU
from detlit.models.layers.merge import Add, Concat

__all__ = ["Bottleneck", "CSPLayer"]


class Bottleneck(nn.Module):
    """Two convolution blocks with a weighted shortcut: ``y = alpha * x + f(x)``, alpha learned and 1 at the start.

    Args:
        channels: channels of input and output.
        block: makes a convolution block from its input and output channels.
    """

    def __init__(self, channels: int, block: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = block(channels, channels)
        self.conv2 = block(channels, channels)
        self.alpha = nn.Parameter(torch.ones(1))
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        # In the dtype of x: under autocast a float32 alpha would make the maps from here on float32, twice the memory.
        return cast(Tensor, self.add(self.alpha.to(x.dtype) * x, self.conv2(self.conv1(x))))


class CSPLayer(nn.Module):
    """Bottlenecks on one half of the channels, joined with the other half that passes them by.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        hidden_channels: channels of each half.
        num_blocks: bottlenecks one after another.
        block: makes the convolution blocks of the bottlenecks from their input and output channels.
        concat_intermediates: join the input and output of every bottleneck instead of the last output alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        num_blocks: int,
        block: Callable[[int, int], nn.Module],
        concat_intermediates: bool = False,
    ) -> None:
        super().__init__()
        self.concat_intermediates = concat_intermediates
        self.conv1 = ConvBNReLU(in_channels, hidden_channels, 1)
        self.conv2 = ConvBNReLU(in_channels, hidden_channels, 1)
        self.bottlenecks = nn.ModuleList(Bottleneck(hidden_channels, block) for _ in range(num_blocks))
        self.concat = Concat()
        joined = num_blocks + 2 if concat_intermediates else 2
        self.conv3 = ConvBNReLU(joined * hidden_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        outputs: list[Tensor] = [self.conv1(x)]
        for bottleneck in self.bottlenecks:
            outputs.append(bottleneck(outputs[-1]))
        if not self.concat_intermediates:
            outputs = outputs[-1:]
        return cast(Tensor, self.conv3(self.concat(*outputs, self.conv2(x))))
