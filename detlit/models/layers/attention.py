"""Channel attention: scale each channel by how much its mean over the image matters."""

from typing import cast

from torch import Tensor, nn

__all__ = ["EffectiveSE"]


class EffectiveSE(nn.Module):
    """Effective squeeze and excitation: ``y = x * hardsigmoid(conv1x1(mean(x)))``, https://arxiv.org/abs/1911.06667.

    Args:
        channels: channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1)
        self.act = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        return x * cast(Tensor, self.act(self.project(x.mean((2, 3), keepdim=True))))
