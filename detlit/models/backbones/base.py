"""What a detector expects of a backbone."""

from torch import Tensor, nn

from detlit.spec import Recorded

__all__ = ["Backbone", "forget_pretrained"]


class Backbone(Recorded, nn.Module):
    """Base of networks that turn images into feature maps, from fine to coarse.

    Attributes:
        in_channels: channels of the images.
        out_channels: channels of each feature map.
        strides: input pixels per cell of each feature map.
    """

    in_channels: int = 3
    out_channels: tuple[int, ...]
    strides: tuple[int, ...]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map ``(B, in_channels, H, W)`` to one ``(B, out_channels[i], H / strides[i], W / strides[i])`` per stride."""
        raise NotImplementedError


def forget_pretrained(backbone: Backbone) -> None:
    """Record ``pretrained=False``: what is rebuilt from a checkpoint finds its weights there and downloads nothing."""
    arguments = backbone.__dict__["_init_arguments"]
    if "pretrained" in arguments:  # the constructor of a subclass may not take it
        arguments["pretrained"] = False
