"""Backbone of PP-YOLOE: CSPRepResNet, https://arxiv.org/abs/2203.16250, section 2.2."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.backbones.base import Backbone
from detlit.models.layers import ConvBNSiLU, CSPRepLayer, EffectiveSE, RepBottleneck

__all__ = ["CSPResNet"]


class CSPResStage(nn.Module):
    """Halve the resolution, then refine with residual bottlenecks and channel attention.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        num_blocks: number of bottlenecks.
    """

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int) -> None:
        super().__init__()
        channels = (in_channels + out_channels) // 2
        hidden = channels // 2
        self.downsample = ConvBNSiLU(in_channels, channels, stride=2)
        self.blocks = CSPRepLayer(
            channels,
            out_channels,
            hidden,
            nn.Sequential(*(RepBottleneck(hidden, shortcut=True) for _ in range(num_blocks))),
            EffectiveSE(2 * hidden),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H / 2, W / 2)``."""
        return cast(Tensor, self.blocks(self.downsample(x)))


class CSPResNet(Backbone):
    """A stem of three convolutions at stride 2 and stages at strides 4, 8, 16, ….

    Args:
        stem_channels: output channels of the stem; its first two convolutions have half as many.
        stage_channels: output channels of each stage.
        num_blocks: number of bottlenecks in each stage.
        in_channels: channels of the images. detlit's data modules load RGB images; others are yours to load.

    Raises:
        ConfigurationError: the two lists differ in length.
    """

    def __init__(
        self, stem_channels: int, stage_channels: Sequence[int], num_blocks: Sequence[int], in_channels: int = 3
    ) -> None:
        super().__init__()
        if len(stage_channels) != len(num_blocks):
            raise ConfigurationError(
                f"stage_channels and num_blocks have {len(stage_channels)} and {len(num_blocks)} entries: "
                "give each one entry per stage."
            )
        self.in_channels = in_channels
        self.stem = nn.Sequential(
            OrderedDict(
                conv1=ConvBNSiLU(in_channels, stem_channels // 2, stride=2),
                conv2=ConvBNSiLU(stem_channels // 2, stem_channels // 2),
                conv3=ConvBNSiLU(stem_channels // 2, stem_channels),
            )
        )
        channels = pairwise((stem_channels, *stage_channels))
        self.stages = nn.ModuleList(
            CSPResStage(*pair, blocks) for pair, blocks in zip(channels, num_blocks, strict=True)
        )
        self.out_channels = tuple(stage_channels)
        self.strides = tuple(4 * 2**i for i in range(len(stage_channels)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map ``(B, in_channels, H, W)`` to one feature map per stage."""
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)
