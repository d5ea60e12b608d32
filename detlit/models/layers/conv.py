"""Convolution, batch normalization and activation: the units the detectors are made of."""

from typing import cast

from torch import Tensor, nn

__all__ = ["ConvBNReLU", "ConvBNSiLU", "batch_norm"]


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return the batch normalization that every YOLO-NAS layer uses."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch normalization, ReLU; an odd kernel keeps the size at stride 1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd.
        stride: step of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = batch_norm(out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        return cast(Tensor, self.act(self.bn(self.conv(x))))


class ConvBNSiLU(nn.Module):
    """Convolution without bias, batch normalization, SiLU, as PP-YOLOE uses it.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd; it keeps the size at stride 1.
        stride: step of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        return cast(Tensor, self.act(self.bn(self.conv(x))))
