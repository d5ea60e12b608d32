"""Cross-stage partial layer of PP-YOLOE, https://arxiv.org/abs/2203.16250, section 2.2."""

from typing import cast

from torch import Tensor, nn

from detlit.models.layers.conv import ConvBNSiLU
from detlit.models.layers.merge import Add, Concat
from detlit.models.layers.repvgg import RepVGGBlock

__all__ = ["CSPRepLayer", "RepBottleneck"]


class RepBottleneck(nn.Module):
    """A 3x3 convolution and a re-parameterisable block: ``y = f(x)``, or ``x + f(x)`` with the shortcut.

    Args:
        channels: channels of input and output.
        shortcut: add the input.
    """

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = ConvBNSiLU(channels, channels)
        self.conv2 = RepVGGBlock(channels, channels)
        self.add = Add() if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        y: Tensor = self.conv2(self.conv1(x))
        return y if self.add is None else cast(Tensor, self.add(x, y))


class CSPRepLayer(nn.Module):
    """Bottlenecks on one half of the channels, joined with the other half that passes them by.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        hidden_channels: channels of each half.
        bottlenecks: what one half goes through, from ``hidden_channels`` to as many.
        attention: applied to both halves together; ``None`` for nothing.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        bottlenecks: nn.Sequential,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = ConvBNSiLU(in_channels, hidden_channels, 1)
        self.conv2 = ConvBNSiLU(in_channels, hidden_channels, 1)
        self.bottlenecks = bottlenecks
        self.concat = Concat()
        self.attention = attention
        self.conv3 = ConvBNSiLU(2 * hidden_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        joined: Tensor = self.concat(self.conv1(x), self.bottlenecks(self.conv2(x)))
        if self.attention is not None:
            joined = self.attention(joined)
        return cast(Tensor, self.conv3(joined))
