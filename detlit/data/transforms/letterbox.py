"""Fit images into the network input."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import Sample
from detlit.structures import Preprocessing

__all__ = ["Letterbox", "letterbox", "letterbox_matrix"]


def letterbox(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return ``image`` ``(H, W, 3)`` resized into, and padded to, the network input, bilinearly.

    Boxes follow it by ``preprocessing.geometry(H, W)``.
    """
    height, width = image.shape[:2]
    content_height, content_width = preprocessing.content_shape(height, width)
    left, top = (int(offset) for offset in preprocessing.geometry(height, width)[2:])
    if (content_height, content_width) != (height, width):
        image = cv2.resize(image, (content_width, content_height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    canvas = np.full((*preprocessing.size, 3), preprocessing.pad_value, dtype=np.uint8)
    canvas[top : top + content_height, left : left + content_width] = image
    return canvas


def letterbox_matrix(preprocessing: Preprocessing, height: int, width: int) -> NDArray[np.float64]:
    """Return ``(3, 3)`` the map from an image of ``height`` by ``width`` to the network input, in pixel coordinates."""
    scale_x, scale_y, left, top = preprocessing.geometry(height, width)
    return np.array([[scale_x, 0.0, left], [0.0, scale_y, top], [0.0, 0.0, 1.0]])


class Letterbox:
    """Fit samples into the network input, as validation and prediction do.

    Args:
        preprocessing: size, padding and rounding.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, sample: Sample, generator: np.random.Generator | None = None) -> Sample:
        """Return the sample in network input pixels; nothing is random."""
        geometry = self.preprocessing.geometry(*sample.image.shape[:2])
        scale_x, scale_y, left, top = geometry
        return replace(
            sample,
            image=letterbox(sample.image, self.preprocessing),
            boxes=sample.boxes * (scale_x, scale_y, scale_x, scale_y) + (left, top, left, top),
            geometry=geometry,
        )
