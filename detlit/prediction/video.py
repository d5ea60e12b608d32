"""Videos, cameras and streams, one frame at a time."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.errors import ImageReadError

__all__ = ["VIDEO_SUFFIXES", "VideoFile", "count_frames", "read_video"]

VIDEO_SUFFIXES = (".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
"""Files that are read as videos."""

_DEFAULT_FPS = 30.0
"""Of a camera that does not say."""


def read_video(source: str | int) -> tuple[float | None, Iterator[NDArray[np.uint8]]]:
    """Return the frames per second, where known, and an iterator over the frames ``(H, W, 3)`` uint8 RGB.

    Args:
        source: a file, the URL of a stream, or the number of a camera.

    Raises:
        ImageReadError: it cannot be opened, or, from the iterator, has no frame.
    """
    capture = cv2.VideoCapture(source)
    name = f"camera {source}" if isinstance(source, int) else f"video {source}"
    if not capture.isOpened():
        raise ImageReadError(f"{name} cannot be opened: check that it exists and is not in use or damaged.")
    fps = capture.get(cv2.CAP_PROP_FPS)
    return (fps if 0 < fps < 1000 else None), _frames(capture, name)


def count_frames(path: str | Path) -> int | None:
    """Return how many frames a video says it has, ``None`` where it does not say."""
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count if count > 0 else None


def _frames(capture: cv2.VideoCapture, name: str) -> Iterator[NDArray[np.uint8]]:
    try:
        found = False
        while True:
            ok, image = capture.read()
            if not ok:
                break
            found = True
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[misc]
        if not found:
            raise ImageReadError(f"{name} has no frame that can be decoded: convert or replace it.")
    finally:
        capture.release()


class VideoFile:
    """A video that frames are added to, MPEG-4, or Motion JPEG in ``.avi``.

    Args:
        path: the file.
        size: (height, width) of the frames in pixels.
        fps: frames per second; ``None`` takes 30.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path, size: tuple[int, int], fps: float | None) -> None:
        codec = cv2.VideoWriter.fourcc(*("MJPG" if Path(path).suffix.lower() == ".avi" else "mp4v"))
        self.size = size
        self._writer = cv2.VideoWriter(str(path), codec, fps or _DEFAULT_FPS, (size[1], size[0]))
        if not self._writer.isOpened():
            raise OSError(f"video {path} cannot be written: check the folder's permissions and the disk.")

    def write(self, image: NDArray[np.uint8]) -> None:
        """Add a frame ``(H, W, 3)`` uint8 RGB; one of another size, as a stream may send, is resized."""
        if image.shape[:2] != self.size:
            image = cv2.resize(image, self.size[::-1])  # type: ignore[assignment]
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()
