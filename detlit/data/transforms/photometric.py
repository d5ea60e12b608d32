"""Augmentations that change colours."""

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.data.transforms.base import BatchTransform, PhotometricTransform, checked_probability
from detlit.errors import ConfigurationError

__all__ = ["BatchHSV", "ChannelSwap", "RandomHSV"]

_STRIP = 64
"""Rows that are converted together: they stay in the processor's cache, and out of the allocator for large blocks."""


class RandomHSV(PhotometricTransform):
    """Add a random amount to hue, saturation and value, each drawn uniformly from ``[-gain, gain]``.

    Hue goes round, saturation and value stop at 0 and 255.

    Args:
        hgain: in half degrees, the colour circle being 180.
        sgain: of 255.
        vgain: of 255.
        probability: of changing an image at all.
        mode: ``"exact"`` converts to hue, saturation and value and back; ``"matrix"`` multiplies the colours by one
            matrix, see :func:`colour_matrix`, in a tenth of the time.

    Raises:
        ConfigurationError: gains that change nothing or are too large, no probability, or an unknown mode.
    """

    def __init__(
        self,
        hgain: float = 18.0,
        sgain: float = 30.0,
        vgain: float = 30.0,
        probability: float = 1.0,
        mode: Literal["exact", "matrix"] = "exact",
    ) -> None:
        self.gains = _checked_gains(hgain, sgain, vgain)
        self.probability = checked_probability(probability)
        if mode not in ("exact", "matrix"):
            raise ConfigurationError(f"mode={mode!r} is unknown: choose 'exact' or 'matrix'.")
        self.mode = mode

    def __call__(self, image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
        """Return a changed copy of ``image`` ``(H, W, 3)`` uint8 RGB."""
        shifts = _draw_shifts(self.gains, self.probability, generator)
        if shifts is None:
            return image
        if self.mode == "matrix":
            return cv2.transform(image, colour_matrix(*shifts))  # type: ignore[return-value]
        return _shift_hsv(image, *shifts)


class BatchHSV(BatchTransform):
    """:class:`RandomHSV` in matrix mode for whole batches on the device, so that the workers are spared it.

    Args:
        hgain: in half degrees, the colour circle being 180.
        sgain: of 255.
        vgain: of 255.
        probability: of changing an image at all.

    Raises:
        ConfigurationError: gains that change nothing or are too large, or no probability.
    """

    def __init__(self, hgain: float = 18.0, sgain: float = 30.0, vgain: float = 30.0, probability: float = 1.0) -> None:
        self.gains = _checked_gains(hgain, sgain, vgain)
        self.probability = checked_probability(probability)

    def __call__(self, images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Return changed ``images`` ``(B, 3, H, W)`` uint8 RGB."""
        drawn = [_draw_shifts(self.gains, self.probability, generator) for generator in generators]
        matrices = np.stack([colour_matrix(*(shifts or (0, 0, 0))) for shifts in drawn])
        on_device = torch.from_numpy(matrices).float().to(images.device, non_blocking=True)
        changed = torch.bmm(on_device, images.flatten(2).float())
        return changed.round_().clamp_(0, 255).to(torch.uint8).view_as(images)


class ChannelSwap(PhotometricTransform):
    """Swap red and blue.

    Args:
        probability: of doing so.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = checked_probability(probability)

    def __call__(self, image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
        """Return a changed copy of ``image`` ``(H, W, 3)``, or the image."""
        if generator.random() >= self.probability:
            return image
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # type: ignore[return-value]


def colour_matrix(hue: int, saturation: int, value: int) -> NDArray[np.float64]:
    """Return ``(3, 3)`` what to multiply RGB colours by to change them much as an addition in HSV would.

    Hue is a rotation about the grey axis; saturation, about the mean of a colour, and value are factors, those that an
    addition means to a colour of saturation or value 128.

    Args:
        hue: in half degrees.
        saturation: of 255.
        value: of 255.
    """
    angle = math.radians(2 * hue)
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turned = math.cos(angle) * (np.eye(3) - grey) + math.sin(angle) * cross
    return (1 + value / 128) * (grey + max(0.0, 1 + saturation / 128) * turned) if value > -128 else np.zeros((3, 3))


def _checked_gains(hgain: float, sgain: float, vgain: float) -> tuple[float, float, float]:
    gains = (hgain, sgain, vgain)
    if min(gains) < 0 or max(gains) < 1 or hgain > 90 or max(gains) > 255:
        raise ConfigurationError(
            f"hgain={hgain}, sgain={sgain}, vgain={vgain} are no gains: they count steps of the 8-bit image, one "
            "must be at least 1, hgain at most 90, the others at most 255."
        )
    return gains


def _draw_shifts(
    gains: tuple[float, float, float], probability: float, generator: np.random.Generator
) -> tuple[int, int, int] | None:
    """Return what to add to hue, saturation and value, ``None`` for no change."""
    chance, shifts = generator.random(), np.rint(generator.uniform(-1, 1, 3) * gains).astype(int)
    return None if chance >= probability else tuple(shifts.tolist())


def _shift_hsv(image: NDArray[np.uint8], hue: int, saturation: int, value: int) -> NDArray[np.uint8]:
    """Return the image with a constant added to each channel of its HSV."""
    result = np.empty_like(image)
    turned = ((np.arange(256) + hue) % 180).astype(np.uint8)
    for first in range(0, len(image), _STRIP):
        strip = slice(first, first + _STRIP)
        hues, saturations, values = cv2.split(cv2.cvtColor(image[strip], cv2.COLOR_RGB2HSV))
        channels = [cv2.LUT(hues, turned), _add(saturations, saturation), _add(values, value)]  # type: ignore[arg-type]
        cv2.cvtColor(cv2.merge(channels), cv2.COLOR_HSV2RGB, dst=result[strip])
    return result


def _add(channel: NDArray[np.uint8], shift: int) -> NDArray[np.uint8]:
    """Return the channel with a constant from -255 to 255 added, stopping at 0 and 255."""
    added: NDArray[np.uint8]
    if shift >= 0:
        added = np.minimum(channel, np.uint8(255 - shift)) + np.uint8(shift)
    else:
        added = np.maximum(channel, np.uint8(-shift)) - np.uint8(-shift)
    return added
