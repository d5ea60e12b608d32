"""Letterbox, affine warp, mosaic and colours, pixel by pixel and corner by corner, in plain Python."""

import colorsys
import math
from typing import Any

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


def draw_image(
    canvas: NDArray[np.uint8], image: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each pixel of the canvas looks up where its centre came from, if that is in the image.

    The second result leaves out the pixels within about half a pixel of the image's edges, where there is a choice.
    """
    rows, columns = image.shape[:2]
    back, drawn, sure = np.linalg.inv(matrix), canvas.astype(float), np.ones(canvas.shape[:2], dtype=np.bool_)
    for row in range(canvas.shape[0]):
        for column in range(canvas.shape[1]):
            x, y, _ = back @ (column + 0.5, row + 0.5, 1.0)
            margin = min(x, columns - x, y, rows - y)
            sure[row, column] = abs(margin) > 0.55
            if margin >= 0:
                inner = (min(max(x, 0.5), columns - 0.5), min(max(y, 0.5), rows - 0.5))
                drawn[row, column] = sample_bilinear(image, *inner, pad_value=0.0)
    return drawn, sure


def mosaic(
    images: list[NDArray[np.uint8]], sizes: list[tuple[float, float]], meeting_point: tuple[float, float], canvas: Any
) -> NDArray[np.float64]:
    """Four images, resized to (width, height), meet at a point of a canvas: the top left, top right, and so on."""
    x, y = meeting_point
    corners = [(x - sizes[0][0], y - sizes[0][1]), (x, y - sizes[1][1]), (x - sizes[2][0], y), (x, y)]
    result = canvas.astype(float)
    for image, (width, height), (left, top) in zip(images, sizes, corners, strict=True):
        rows, columns = image.shape[:2]
        matrix = np.array([[width / columns, 0.0, left], [0.0, height / rows, top], [0.0, 0.0, 1.0]])
        result = draw_image(result, image, matrix)[0]
    return result


def shift_hsv(colour: tuple[int, int, int], hue: int, saturation: int, value: int) -> list[float]:
    """One RGB colour through the standard library: hue in 180ths of the circle, the others in 255ths."""
    h, s, v = colorsys.rgb_to_hsv(*(level / 255 for level in colour))
    s, v = (min(max(old + added / 255, 0.0), 1.0) for old, added in ((s, saturation), (v, value)))
    return [255 * level for level in colorsys.hsv_to_rgb((h + hue / 180) % 1.0, s, v)]


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
