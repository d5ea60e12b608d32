"""Fit images into the network input."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import Sample
from detlit.structures import Preprocessing

__all__ = ["Letterbox", "letterbox", "letterbox_matrix", "resized"]


def letterbox(
    image: NDArray[np.uint8], preprocessing: Preprocessing, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return ``image`` ``(H, W, 3)`` resized into, and padded to, the network input, bilinearly.

    Boxes follow it by ``preprocessing.geometry(H, W)``.

    Args:
        image: the image, RGB.
        preprocessing: size, padding and rounding.
        size: (height, width) that counts instead of the image's own, for an image decoded at a reduced scale.
    """
    height, width = image.shape[:2] if size is None else size
    content_height, content_width = preprocessing.content_shape(height, width)
    left, top = (int(offset) for offset in preprocessing.geometry(height, width)[2:])
    canvas = np.full((*preprocessing.size, 3), preprocessing.pad_value, dtype=np.uint8)
    content = canvas[top : top + content_height, left : left + content_width]
    if content.shape == image.shape:
        content[:] = image
    else:
        cv2.resize(image, (content_width, content_height), dst=content, interpolation=cv2.INTER_LINEAR)
    return canvas


def letterbox_matrix(preprocessing: Preprocessing, sample: Sample) -> NDArray[np.float64]:
    """Return ``(3, 3)`` the map from the sample's image to the network input, in pixel coordinates."""
    to_original = np.linalg.inv(_matrix(sample.geometry))
    return _matrix(preprocessing.geometry(*sample.orig_size)) @ to_original


def _matrix(geometry: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Return ``(3, 3)`` the map that a geometry says."""
    scale_x, scale_y, left, top = geometry
    return np.array([[scale_x, 0.0, left], [0.0, scale_y, top], [0.0, 0.0, 1.0]])


def resized(preprocessing: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """Return the preprocessing for another network input, the content in proportion."""
    content = preprocessing.content_size
    if content is not None:
        content = (
            round(content[0] * size[0] / preprocessing.size[0]),
            round(content[1] * size[1] / preprocessing.size[1]),
        )
    return replace(preprocessing, size=size, content_size=content)


class Letterbox:
    """Fit samples into the network input, as validation and prediction do.

    Args:
        preprocessing: size, padding and rounding.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, sample: Sample, generator: np.random.Generator | None = None) -> Sample:
        """Return the sample in network input pixels; nothing is random."""
        scale_x, scale_y, left, top = self.preprocessing.geometry(*sample.orig_size)
        own_x, own_y, own_left, own_top = sample.geometry
        originals = (sample.boxes - (own_left, own_top, own_left, own_top)) / (own_x, own_y, own_x, own_y)
        return replace(
            sample,
            image=letterbox(sample.image, self.preprocessing, sample.orig_size),
            boxes=originals * (scale_x, scale_y, scale_x, scale_y) + (left, top, left, top),
            geometry=(scale_x, scale_y, left, top),
        )
