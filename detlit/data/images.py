"""Image files to RGB arrays."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.image_header import displayed_size
from detlit.errors import ImageReadError

__all__ = ["image_size", "read_image", "write_image"]


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return an image file as ``(H, W, 3)`` uint8 RGB.

    Grey images are repeated over the channels, an alpha channel is dropped, 16-bit values are divided by 256 (OpenCV's
    ``IMREAD_COLOR``). The orientation that cameras note in EXIF is applied, as image viewers do.

    Args:
        path: the image file.
        size: (height, width) that the annotations were made for. Where only the image without its EXIF rotation has
            that size, it is returned unrotated, so that boxes fit what they were drawn on. Orientations that keep the
            size (half turns, mirror images, square images) cannot be told apart and are applied.

    Raises:
        ImageReadError: the file is missing, no image, or contradicts ``size``.
    """
    data = _read_bytes(path)
    image = _decode(data, cv2.IMREAD_COLOR, path)
    if size is None or image.shape[:2] == size:
        return image
    unrotated = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, path)
    if unrotated.shape[:2] == size:
        return unrotated
    raise ImageReadError(
        f"image {path} has {image.shape[1]}x{image.shape[0]} pixels, but its annotations say {size[1]}x{size[0]}: "
        "annotate this file, or restore the one that was annotated."
    )


def image_size(path: str | Path, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return (height, width) of the image that :func:`read_image` returns, mostly without decoding it.

    Args:
        path: the image file.
        size: (height, width) that the annotations were made for; see :func:`read_image`.

    Raises:
        ImageReadError: the file is missing, no image, or contradicts ``size``.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow for 100,000 files
            found = displayed_size(file)
    except OSError as error:
        raise _unreadable(path, error) from error
    if found is None or (size is not None and found != size):
        height, width = read_image(path, size).shape[:2]
        return height, width
    return found


def write_image(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image ``(H, W, 3)`` uint8 in the format that the file's suffix names, PNG if it names none.

    Args:
        path: the file; ``.png`` is added to a name without the suffix of a format that can be written.
        image: the pixels.

    Raises:
        OSError: the file cannot be written.
    """
    name = str(path) if cv2.haveImageWriter(str(path)) else f"{path}.png"
    if not cv2.imwrite(name, cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"image {name} cannot be written: check the folder's permissions and the space left on the disk.")


def _read_bytes(path: str | Path) -> NDArray[np.uint8]:
    try:
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> ImageReadError:
    if isinstance(error, FileNotFoundError):
        return ImageReadError(f"there is no image {path}: check the folder and the file name.")
    return ImageReadError(f"image {path} cannot be opened ({error.strerror or error}): check the file.")


def _decode(data: NDArray[np.uint8], flags: int, path: str | Path) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:
        image = None
    if image is None:
        raise ImageReadError(f"image {path} cannot be decoded ({data.size} bytes): replace or remove the file.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]
