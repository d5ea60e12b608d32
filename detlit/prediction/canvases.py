"""Images into network input: whole or in part, in a fixed size or the smallest that holds them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.data.transforms.letterbox import letterbox
from detlit.structures import Preprocessing

__all__ = ["network_input"]

STRIDE = 32
"""Both sides of the network input are multiples of it."""


def network_input(
    images: Sequence[NDArray[np.uint8]], preprocessing: Preprocessing, *, rectangular: bool = False
) -> tuple[Tensor, Tensor]:
    """Return images as one batch ``(B, 3, H, W)`` uint8, and its geometry ``(B, 4)``: scale_x, scale_y, left, top.

    Args:
        images: ``(h, w, 3)`` uint8 RGB each.
        preprocessing: size, padding and rounding.
        rectangular: pad no further than the next multiple of 32 of the largest content, instead of to the full size;
            images are scaled the same.
    """
    shapes = [image.shape[:2] for image in images]
    each = _rectangles(shapes, preprocessing) if rectangular else [preprocessing] * len(images)
    canvases = np.stack([letterbox(image, own) for image, own in zip(images, each, strict=True)])
    geometry = [own.geometry(*shape) for shape, own in zip(shapes, each, strict=True)]
    return torch.from_numpy(canvases).permute(0, 3, 1, 2), torch.tensor(geometry, dtype=torch.float64)


def _rectangles(shapes: Sequence[tuple[int, ...]], preprocessing: Preprocessing) -> list[Preprocessing]:
    """Return the preprocessing of each image in the smallest common canvas."""
    contents = [preprocessing.content_shape(shape[0], shape[1]) for shape in shapes]
    height, width = (-(-max(sides) // STRIDE) * STRIDE for sides in zip(*contents, strict=True))
    # To stretch an image to its own content shape is to scale it as before.
    return [replace(preprocessing, size=(height, width), content_size=own, keep_ratio=False) for own in contents]
