"""Neck of YOLO-NAS: a path aggregation network, https://arxiv.org/abs/1803.01534, that also reads the stride 4 map."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.layers import Concat, ConvBNReLU, CSPLayer, QARepVGGBlock
from detlit.models.necks.base import Neck, find_levels

__all__ = ["YoloNASNeck"]


class UpStage(nn.Module):
    """Double the resolution of a map and merge it with a map of that resolution and one of twice that.

    Args:
        in_channels: channels of the coarse map, of the same-resolution map and of the fine map.
        out_channels: channels of both outputs.
        hidden_channels: channels of the bottlenecks.
        num_blocks: number of bottlenecks.
    """

    def __init__(
        self, in_channels: tuple[int, int, int], out_channels: int, hidden_channels: int, num_blocks: int
    ) -> None:
        super().__init__()
        coarse, same, fine = in_channels
        self.conv = ConvBNReLU(coarse, out_channels, 1)
        self.upsample = nn.ConvTranspose2d(out_channels, out_channels, 2, stride=2)
        self.reduce_same = ConvBNReLU(same, out_channels, 1)
        self.reduce_fine = ConvBNReLU(fine, out_channels, 1)
        self.downsample = ConvBNReLU(out_channels, out_channels, stride=2)
        self.concat = Concat()
        self.reduce_concat = ConvBNReLU(3 * out_channels, out_channels, 1)
        self.blocks = CSPLayer(out_channels, out_channels, hidden_channels, num_blocks, QARepVGGBlock)

    def forward(self, coarse: Tensor, same: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``coarse`` with reduced channels, ``(B, out_channels, H, W)``, and the merged map, twice its size."""
        reduced = self.conv(coarse)
        merged = self.concat(self.upsample(reduced), self.reduce_same(same), self.downsample(self.reduce_fine(fine)))
        return reduced, self.blocks(self.reduce_concat(merged))


class DownStage(nn.Module):
    """Halve the resolution of a map and merge it with a map of that resolution.

    Args:
        in_channels: channels of the fine and of the coarse map.
        out_channels: channels of the output.
        hidden_channels: channels of the bottlenecks.
        num_blocks: number of bottlenecks.
    """

    def __init__(self, in_channels: tuple[int, int], out_channels: int, hidden_channels: int, num_blocks: int) -> None:
        super().__init__()
        fine, coarse = in_channels
        self.conv = ConvBNReLU(fine, out_channels // 2, stride=2)
        self.concat = Concat()
        self.blocks = CSPLayer(out_channels // 2 + coarse, out_channels, hidden_channels, num_blocks, ConvBNReLU)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return the merged map ``(B, out_channels, H, W)`` of the coarse map's size."""
        return cast(Tensor, self.blocks(self.concat(self.conv(fine), coarse)))


class YoloNASNeck(Neck):
    """Two stages up to the finest resolution the head sees, two stages down again.

    Args:
        in_channels: channels of the backbone's feature maps.
        strides: input pixels per cell of those maps; the neck reads 4, 8, 16 and 32 and returns all but the first.
        stage_channels: output channels of the stages up, up, down, down.
        hidden_channels: channels of the bottlenecks in each of them.
        num_blocks: number of bottlenecks in each of them.

    Raises:
        ConfigurationError: a backbone with other strides, or a list that has not four entries.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        *,
        stage_channels: Sequence[int],
        hidden_channels: Sequence[int],
        num_blocks: Sequence[int],
    ) -> None:
        super().__init__()
        self.inputs = find_levels("YoloNASNeck", strides, wanted=(4, 8, 16, 32))
        if {len(stage_channels), len(hidden_channels), len(num_blocks)} != {4}:
            raise ConfigurationError(
                "YoloNASNeck has the stages up, up, down, down: give stage_channels, hidden_channels and num_blocks "
                f"4 entries each instead of {len(stage_channels)}, {len(hidden_channels)} and {len(num_blocks)}."
            )
        c2, c3, c4, c5 = (in_channels[i] for i in self.inputs)
        up1, up2, down1, down2 = stage_channels
        self.up1 = UpStage((c5, c4, c3), up1, hidden_channels[0], num_blocks[0])
        self.up2 = UpStage((up1, c3, c2), up2, hidden_channels[1], num_blocks[1])
        self.down1 = DownStage((up2, up2), down1, hidden_channels[2], num_blocks[2])
        self.down2 = DownStage((down1, up1), down2, hidden_channels[3], num_blocks[3])
        self.out_channels = (up2, down1, down2)
        self.strides = (8, 16, 32)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map the backbone's feature maps to three, from fine to coarse."""
        c2, c3, c4, c5 = (features[i] for i in self.inputs)
        reduced5, p4 = self.up1(c5, c4, c3)
        reduced4, p3 = self.up2(p4, c3, c2)
        p4 = self.down1(p3, reduced4)
        return p3, p4, self.down2(p4, reduced5)
