"""Convolution, batch normalization and activation: the units the detectors are made of."""

from typing import cast

from torch import Tensor, nn

from detlit.models.layers.fusion import Fusable, fold_batch_norm, require_eval

__all__ = ["ConvBNReLU", "ConvBNSiLU", "batch_norm"]


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return the batch normalization that every YOLO-NAS layer uses."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)


class ConvBNAct(Fusable):
    """Convolution without bias, batch normalization, activation; an odd kernel keeps the size at stride 1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd.
        stride: step of the convolution.
        bn: normalizes ``out_channels`` channels.
        act: the activation.
    """

    bn: nn.BatchNorm2d | nn.Identity

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, bn: nn.BatchNorm2d, act: nn.Module
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = bn
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        return cast(Tensor, self.act(self.bn(self.conv(x))))

    def fuse(self, full: bool) -> None:
        """Fold the normalization into the convolution in full fusion; partial fusion and a second one do nothing.

        Raises:
            ConfigurationError: the module is in training mode.
        """
        require_eval(self)
        if full and isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fold_batch_norm(self.conv, self.bn)
            self.bn = nn.Identity()


class ConvBNReLU(ConvBNAct):
    """Convolution without bias, batch normalization, ReLU; an odd kernel keeps the size at stride 1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd.
        stride: step of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, batch_norm(out_channels), nn.ReLU(inplace=True)
        )


class ConvBNSiLU(ConvBNAct):
    """Convolution without bias, batch normalization, SiLU, as PP-YOLOE uses it.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd; it keeps the size at stride 1.
        stride: step of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, nn.BatchNorm2d(out_channels), nn.SiLU())
