"""Videos and pictures that tests of prediction make."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data import ShapesDataset


def shapes_images(count: int, seed: int = 1) -> list[NDArray[np.uint8]]:
    """Return images ``(128, 128, 3)`` uint8 RGB like those that the small detector was trained on, not among them."""
    data = ShapesDataset(count, image_size=128, seed=seed)
    return [data.load_image(index) for index in range(count)]


def write_video(path: Path, count: int, size: tuple[int, int] = (48, 64), fps: float = 25.0) -> Path:
    """Write a video whose frames are grey, of twelve brightnesses, 20 apart; ``.mp4`` or ``.avi``."""
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (size[1], size[0]))
    assert writer.isOpened()
    for index in range(count):
        writer.write(np.full((*size, 3), 20 * (index % 12), dtype=np.uint8))
    writer.release()
    return path
