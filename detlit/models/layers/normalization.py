"""From image bytes to network input, on the device."""

import torch
from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.structures import Preprocessing

__all__ = ["InputNormalization"]


class InputNormalization(nn.Module):
    """Scale images to [0, 1], bring their channels into the detector's order, subtract the mean, divide by ``std``.

    It is part of the detector so that workers and the bus move bytes and an exported graph takes raw images. Its
    buffers are no weights: they follow the device but stay out of the state dict.

    Args:
        preprocessing: ``channel_order``, ``mean`` and ``std`` are applied here, the rest when images are loaded.
        in_channels: channels of the images; those of other images than RGB ones, with 3, stay in order.

    Raises:
        ConfigurationError: ``mean`` or ``std`` has another number of values.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, preprocessing: Preprocessing, in_channels: int = 3) -> None:
        super().__init__()
        self.flip_channels = preprocessing.channel_order == "BGR" and in_channels == 3
        for name in ("mean", "std"):
            values = getattr(preprocessing, name)
            if values is not None and len(values) != in_channels:
                raise ConfigurationError(
                    f"preprocessing has {name}={list(values)} for images of {in_channels} channels: "
                    "give one value per channel."
                )
            buffer = None if values is None else torch.tensor(values).view(1, in_channels, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Return network input in ``dtype``.

        Args:
            images: ``(B, in_channels, H, W)``, RGB where those are 3; uint8 in 0 to 255 or floating point in [0, 1].
            dtype: of the detector's weights.

        Raises:
            ConfigurationError: images of another type, whose range is unknown.
        """
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ConfigurationError(
                f"images of type {images.dtype} have no known range: "
                "pass torch.uint8 (0 to 255) or floating point (0 to 1)."
            )
        if self.flip_channels:
            images = images.flip(1)
        scaled = images.to(dtype).div_(255) if images.dtype == torch.uint8 else images.to(dtype)
        if self.mean is not None:
            scaled = scaled - self.mean
        return scaled if self.std is None else scaled / self.std
