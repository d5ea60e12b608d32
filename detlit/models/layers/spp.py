"""Spatial pyramid pooling, https://arxiv.org/abs/1406.4729, in the form YOLO detectors use."""

from typing import cast

from torch import Tensor, nn

from detlit.models.layers.conv import ConvBNReLU
from detlit.models.layers.merge import Concat

__all__ = ["SPP", "PyramidPooling"]


class PyramidPooling(nn.Module):
    """A feature map joined with its maxima over 5x5, 9x9 and 13x13 windows.

    The two larger windows are the 5x5 one applied again, which gives the same maxima for a quarter of the work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.concat = Concat()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, 4 C, H, W)``: the map itself, then the maxima, small windows first."""
        maps = [x]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return cast(Tensor, self.concat(*maps))


class SPP(nn.Module):
    """Pyramid pooling between two 1x1 convolutions.

    Args:
        in_channels: channels of the input; half as many are pooled.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden_channels = in_channels // 2
        self.conv1 = ConvBNReLU(in_channels, hidden_channels, 1)
        self.pooling = PyramidPooling()
        self.conv2 = ConvBNReLU(4 * hidden_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        return cast(Tensor, self.conv2(self.pooling(self.conv1(x))))
