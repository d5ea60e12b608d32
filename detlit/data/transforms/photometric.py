"""Augmentations that change colours."""

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.transforms.compose import PhotometricTransform
from detlit.errors import ConfigurationError

__all__ = ["RandomHSV"]


class RandomHSV(PhotometricTransform):
    """Add a random amount to hue, saturation and value, each drawn uniformly from ``[-gain, gain]``.

    Hue goes round, saturation and value stop at 0 and 255.

    Args:
        hgain: in half degrees, the colour circle being 180.
        sgain: of 255.
        vgain: of 255.
        probability: of changing an image at all.

    Raises:
        ConfigurationError: gains that change nothing or are too large, or no probability.
    """

    def __init__(self, hgain: float = 18.0, sgain: float = 30.0, vgain: float = 30.0, probability: float = 1.0) -> None:
        gains = (hgain, sgain, vgain)
        if min(gains) < 0 or max(gains) < 1 or hgain > 90 or max(gains) > 255:
            raise ConfigurationError(
                f"hgain={hgain}, sgain={sgain}, vgain={vgain} are no gains: they count steps of the 8-bit image, one "
                "must be at least 1, hgain at most 90, the others at most 255."
            )
        if not 0 <= probability <= 1:
            raise ConfigurationError(f"probability={probability} is none: give a number from 0 to 1.")
        self.gains = gains
        self.probability = probability

    def __call__(self, image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
        """Return a changed copy of ``image`` ``(H, W, 3)`` uint8 RGB."""
        chance, shifts = generator.random(), np.rint(generator.uniform(-1, 1, 3) * self.gains).astype(np.int64)
        if chance >= self.probability:
            return image
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        return cv2.cvtColor(cv2.LUT(hsv, _lookup_tables(*shifts)), cv2.COLOR_HSV2RGB)  # type: ignore[return-value]


def _lookup_tables(hue: int, saturation: int, value: int) -> NDArray[np.uint8]:
    """Return ``(1, 256, 3)`` the shifted levels of each channel."""
    levels = np.arange(256)
    tables = [(levels + hue) % 180, np.clip(levels + saturation, 0, 255), np.clip(levels + value, 0, 255)]
    return np.stack(tables, axis=1)[None].astype(np.uint8)
