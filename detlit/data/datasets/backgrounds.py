"""What generated scenes show besides their objects."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["add_grain", "draw_background", "draw_clutter"]


_LETTERS = "ABCDEFGHJKLMNPRSTUVWYZ"  # without those that look like a ring or a cross


def draw_background(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Return ``(H, W, 3)`` uint8: a colour gradient, plus clouds, stripes or checks."""
    gradient = _enlarge(generator.integers(20, 236, (2, 2, 3)), height, width, cv2.INTER_LINEAR)
    kind = generator.integers(3)
    if kind == 0:
        cells = int(generator.integers(4, 13))
        texture = _enlarge(generator.integers(0, 256, (cells, cells, 3)), height, width, cv2.INTER_CUBIC)
    elif kind == 1:
        texture = _stripes(generator, height, width)
    else:
        cells = int(generator.integers(3, 9))
        checks = np.indices((cells, cells)).sum(axis=0)[..., None] % 2
        texture = _enlarge(checks * generator.integers(0, 256, 3), height, width, cv2.INTER_NEAREST)
    weight = generator.uniform(0.1, 0.45)
    return cv2.addWeighted(gradient, 1 - weight, texture, weight, 0)  # type: ignore[return-value]


def draw_clutter(image: NDArray[np.uint8], generator: np.random.Generator) -> None:
    """Draw lines, open arcs and letters, none of them an object, onto ``image`` ``(H, W, 3)``."""
    height, width = image.shape[:2]
    for kind in generator.integers(0, 3, int(generator.integers(2, 8))):
        x, y = int(generator.integers(width)), int(generator.integers(height))
        colour = generator.integers(0, 256, 3).tolist()
        size = float(generator.uniform(0.08, 0.35) * min(height, width))
        angle = float(generator.uniform(0, 2 * math.pi))
        if kind == 0:
            end = (round(x + 2 * size * math.cos(angle)), round(y + 2 * size * math.sin(angle)))
            cv2.line(image, (x, y), end, colour, int(generator.integers(1, 4)), cv2.LINE_AA)
        elif kind == 1:
            axes, turn = (round(size), round(0.6 * size)), math.degrees(angle)
            cv2.ellipse(image, (x, y), axes, turn, 0, 120, colour, int(generator.integers(1, 4)), cv2.LINE_AA)
        else:
            letter = _LETTERS[int(generator.integers(len(_LETTERS)))]
            cv2.putText(image, letter, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size / 30, colour, 1, cv2.LINE_AA)


def add_grain(image: NDArray[np.uint8], generator: np.random.Generator) -> None:
    """Add sensor-like noise to ``image`` ``(H, W, 3)``, in place."""
    height, width = image.shape[:2]
    strength = int(generator.integers(2, 24))
    noise = np.frombuffer(generator.bytes(height * width), dtype=np.uint8).reshape(height, width)
    grain = cv2.convertScaleAbs(noise, alpha=strength / 256)
    cv2.add(image, cv2.merge([grain, grain, grain]), dst=image)


def _stripes(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Return ``(H, W, 3)`` parallel waves of one colour at a random angle."""
    angle, period = generator.uniform(0, math.pi), generator.uniform(5, 40)
    step = 2 * math.pi / period
    along_x = np.arange(width, dtype=np.float32) * np.float32(step * math.cos(angle))
    along_y = np.arange(height, dtype=np.float32) * np.float32(step * math.sin(angle))
    # sin(x + y) from the sines of the axes: one sine per row and column instead of one per pixel
    wave = np.outer(np.sin(along_y), np.cos(along_x)) + np.outer(np.cos(along_y), np.sin(along_x))
    level = cv2.convertScaleAbs(wave + 1, alpha=127)
    return cv2.merge([cv2.convertScaleAbs(level, alpha=share) for share in generator.uniform(0.2, 1, 3).tolist()])  # type: ignore[return-value]


def _enlarge(cells: NDArray[np.int64], height: int, width: int, interpolation: int) -> NDArray[np.uint8]:
    """Return ``(H, W, 3)`` uint8 a small picture blown up."""
    return cv2.resize(cells.astype(np.uint8), (width, height), interpolation=interpolation)  # type: ignore[return-value]
