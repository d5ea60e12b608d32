"""Backbone of YOLO-NAS."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.backbones.base import Backbone
from detlit.models.layers import SPP, CSPLayer, QARepVGGBlock

__all__ = ["YoloNASBackbone"]


class YoloNASStage(nn.Module):
    """Halve the resolution, then refine.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        hidden_channels: channels of the bottlenecks.
        num_blocks: number of bottlenecks.
        concat_intermediates: see :class:`~detlit.models.layers.CSPLayer`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, hidden_channels: int, num_blocks: int, concat_intermediates: bool
    ) -> None:
        super().__init__()
        self.downsample = QARepVGGBlock(in_channels, out_channels, stride=2)
        self.blocks = CSPLayer(
            out_channels, out_channels, hidden_channels, num_blocks, QARepVGGBlock, concat_intermediates
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H / 2, W / 2)``."""
        return cast(Tensor, self.blocks(self.downsample(x)))


class YoloNASBackbone(Backbone):
    """A stem at stride 2 and stages at strides 4, 8, 16, …, with spatial pyramid pooling after the last.

    Args:
        stem_channels: output channels of the stem.
        stage_channels: output channels of each stage.
        hidden_channels: channels of the bottlenecks in each stage.
        num_blocks: number of bottlenecks in each stage.
        concat_intermediates: for each stage, see :class:`~detlit.models.layers.CSPLayer`.
        spp_channels: output channels of the spatial pyramid pooling.
        in_channels: channels of the images. detlit's data modules load RGB images; others are yours to load.

    Raises:
        ConfigurationError: the four lists differ in length.
    """

    def __init__(
        self,
        stem_channels: int,
        stage_channels: Sequence[int],
        hidden_channels: Sequence[int],
        num_blocks: Sequence[int],
        concat_intermediates: Sequence[bool],
        spp_channels: int,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        lengths = [len(x) for x in (stage_channels, hidden_channels, num_blocks, concat_intermediates)]
        if len(set(lengths)) > 1:
            raise ConfigurationError(
                f"stage_channels, hidden_channels, num_blocks and concat_intermediates have {lengths} entries: "
                "give each one entry per stage."
            )
        self.in_channels = in_channels
        self.stem = QARepVGGBlock(in_channels, stem_channels, stride=2)
        channels = pairwise((stem_channels, *stage_channels))
        self.stages = nn.ModuleList(
            YoloNASStage(*pair, hidden, blocks, concat)
            for pair, hidden, blocks, concat in zip(
                channels, hidden_channels, num_blocks, concat_intermediates, strict=True
            )
        )
        self.spp = SPP(stage_channels[-1], spp_channels)
        self.out_channels = (*stage_channels[:-1], spp_channels)
        self.strides = tuple(4 * 2**i for i in range(len(stage_channels)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map ``(B, in_channels, H, W)`` to one feature map per stage, the last one pooled."""
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features[-1] = self.spp(x)
        return tuple(features)
