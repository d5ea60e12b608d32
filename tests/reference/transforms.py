"""Letterbox, affine warp and box warp, pixel by pixel and corner by corner, in plain Python."""

import math

import numpy as np
from numpy.typing import NDArray


def sample_bilinear(image: NDArray[np.uint8], x: float, y: float, pad_value: float) -> NDArray[np.float64]:
    """Colour at the continuous point (x, y), where the centre of pixel 0 is at 0.5; padding lies around the image."""
    height, width = image.shape[:2]
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    colour = np.zeros(3)
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
            inside = 0 <= row < height and 0 <= column < width
            colour += weight * (image[row, column].astype(float) if inside else pad_value)
    return colour


def warp_image(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], height: int, width: int, pad_value: float
) -> NDArray[np.float64]:
    """Each pixel of the canvas looks up where its centre came from."""
    back = np.linalg.inv(matrix)
    canvas = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            x, y, _ = back @ (column + 0.5, row + 0.5, 1.0)
            canvas[row, column] = sample_bilinear(image, x, y, pad_value)
    return canvas


def warp_box(box: NDArray[np.float64], matrix: NDArray[np.float64]) -> list[float]:
    """The box around the four mapped corners."""
    corners = [matrix @ (x, y, 1.0) for x in (box[0], box[2]) for y in (box[1], box[3])]
    xs, ys = [corner[0] for corner in corners], [corner[1] for corner in corners]
    return [min(xs), min(ys), max(xs), max(ys)]


def letterbox(
    image: NDArray[np.uint8], geometry: tuple[float, float, float, float], height: int, width: int, pad_value: float
) -> NDArray[np.float64]:
    """Resize by looking up pixel centres, the edge colours going on beyond the edge, and paste onto the canvas."""
    scale_x, scale_y, left, top = geometry
    rows, columns = image.shape[:2]
    canvas = np.full((height, width, 3), float(pad_value))
    for row in range(int(top), int(top) + round(rows * scale_y)):
        for column in range(int(left), int(left) + round(columns * scale_x)):
            x = min(max((column + 0.5 - left) / scale_x, 0.5), columns - 0.5)
            y = min(max((row + 0.5 - top) / scale_y, 0.5), rows - 0.5)
            canvas[row, column] = sample_bilinear(image, x, y, pad_value)
    return canvas
