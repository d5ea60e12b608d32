"""Images and boxes under an affine map of continuous pixel coordinates, in which pixel 0 reaches from 0 to 1."""

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import clip_boxes

__all__ = ["visible_boxes", "warp_boxes", "warp_image"]


def warp_image(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], height: int, width: int, pad_value: int
) -> NDArray[np.uint8]:
    """Return ``image`` ``(H, W, 3)`` mapped by ``matrix`` ``(3, 3)`` onto a canvas, interpolated bilinearly."""
    to_edges = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    to_centres = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
    pixels = to_centres @ matrix @ to_edges  # OpenCV counts pixel centres, detlit pixel edges
    border = (pad_value, pad_value, pad_value)
    return cv2.warpAffine(image, pixels[:2], (width, height), flags=cv2.INTER_LINEAR, borderValue=border)  # type: ignore[return-value]


def warp_boxes(boxes: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(N, 4)`` the xyxy boxes around the mapped corners of ``boxes`` ``(N, 4)``."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def visible_boxes(
    boxes: NDArray[np.float64],
    height: int,
    width: int,
    min_side: float = 2.0,
    max_aspect_ratio: float = 20.0,
    min_visible: float = 0.1,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cut boxes off at the edges of a canvas and tell which still show an object.

    Args:
        boxes: ``(N, 4)`` xyxy pixels, possibly beyond the canvas.
        height: of the canvas in pixels.
        width: of the canvas in pixels.
        min_side: pixels that both sides must exceed.
        max_aspect_ratio: limit of the longer side over the shorter.
        min_visible: least part of a box's area that must be on the canvas.

    Returns:
        ``(N, 4)`` the boxes on the canvas, and ``(N,)`` whether to keep each.
    """
    clipped = clip_boxes(boxes, height, width)
    sides, whole = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    short, long = sides.min(axis=1), sides.max(axis=1)
    visible = sides.prod(axis=1) > min_visible * whole.prod(axis=1)
    return clipped, (short > min_side) & (long < max_aspect_ratio * short) & visible
