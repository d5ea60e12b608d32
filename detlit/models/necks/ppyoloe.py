"""Neck of PP-YOLOE: a path aggregation network of cross-stage partial layers, https://arxiv.org/abs/2203.16250."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.layers import Concat, ConvBNSiLU, CSPRepLayer, PyramidPooling, RepBottleneck
from detlit.models.necks.base import Neck, find_levels

__all__ = ["PPYoloENeck"]


def make_layer(in_channels: int, out_channels: int, num_blocks: int) -> CSPRepLayer:
    """Return a layer whose bottlenecks have half the output channels and no shortcut."""
    hidden = out_channels // 2
    bottlenecks = (RepBottleneck(hidden, shortcut=False) for _ in range(num_blocks))
    return CSPRepLayer(in_channels, out_channels, hidden, nn.Sequential(*bottlenecks))


def make_pooling_layer(in_channels: int, out_channels: int, num_blocks: int) -> CSPRepLayer:
    """Return a layer as :func:`make_layer` does, with spatial pyramid pooling after its middle bottleneck."""
    hidden = out_channels // 2
    bottlenecks: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(num_blocks):
        bottlenecks[str(i)] = RepBottleneck(hidden, shortcut=False)
        if i == (num_blocks - 1) // 2:
            bottlenecks["spp"] = nn.Sequential(
                OrderedDict(pooling=PyramidPooling(), conv=ConvBNSiLU(4 * hidden, hidden, 1))
            )
    return CSPRepLayer(in_channels, out_channels, hidden, nn.Sequential(bottlenecks))


class MergeStage(nn.Module):
    """Bring a map to the resolution of another, join both and refine.

    Args:
        resample: doubles or halves the resolution of the first map.
        in_channels: channels of both maps together, the first one resampled.
        out_channels: channels of the output.
        num_blocks: number of bottlenecks.
    """

    def __init__(self, resample: nn.Module, in_channels: int, out_channels: int, num_blocks: int) -> None:
        super().__init__()
        self.resample = resample
        self.concat = Concat()
        self.blocks = make_layer(in_channels, out_channels, num_blocks)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the merged map ``(B, out_channels, H, W)`` of the other map's size."""
        return cast(Tensor, self.blocks(self.concat(self.resample(x), other)))


def upsample(channels: int) -> nn.Sequential:
    """Return what halves the channels of a map and doubles its resolution."""
    return nn.Sequential(
        OrderedDict(conv=ConvBNSiLU(channels, channels // 2, 1), upsample=nn.Upsample(scale_factor=2, mode="nearest"))
    )


class PPYoloENeck(Neck):
    """A feature pyramid from stride 32 down to 8, then an aggregation path back up to 32.

    Args:
        in_channels: channels of the backbone's feature maps.
        strides: input pixels per cell of those maps; the neck reads 8, 16 and 32.
        stage_channels: output channels at strides 32, 16 and 8, in the order in which the neck returns its maps.
        num_blocks: number of bottlenecks in each stage.

    Raises:
        ConfigurationError: a backbone with other strides, or ``stage_channels`` that has not three entries.
    """

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], *, stage_channels: Sequence[int], num_blocks: int
    ) -> None:
        super().__init__()
        self.inputs = find_levels("PPYoloENeck", strides, wanted=(8, 16, 32))
        if len(stage_channels) != 3 or num_blocks < 1:
            raise ConfigurationError(
                f"stage_channels={list(stage_channels)} and num_blocks={num_blocks} do not fit PPYoloENeck: "
                "give one entry for each of the strides 32, 16 and 8, and at least 1 bottleneck."
            )
        c3, c4, c5 = (in_channels[i] for i in self.inputs)
        p5, p4, p3 = stage_channels
        self.fpn5 = make_pooling_layer(c5, p5, num_blocks)
        self.fpn4 = MergeStage(upsample(p5), p5 // 2 + c4, p4, num_blocks)
        self.fpn3 = MergeStage(upsample(p4), p4 // 2 + c3, p3, num_blocks)
        self.pan4 = MergeStage(ConvBNSiLU(p3, p3, stride=2), p3 + p4, p4, num_blocks)
        self.pan5 = MergeStage(ConvBNSiLU(p4, p4, stride=2), p4 + p5, p5, num_blocks)
        self.out_channels = tuple(stage_channels)
        self.strides = (32, 16, 8)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map the backbone's feature maps to three, from coarse to fine."""
        c3, c4, c5 = (features[i] for i in self.inputs)
        f5 = self.fpn5(c5)
        f4 = self.fpn4(f5, c4)
        p3 = self.fpn3(f4, c3)
        p4 = self.pan4(p3, f4)
        return self.pan5(p4, f5), p4, p3
