"""Image files to RGB arrays."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.image_header import displayed_size
from detlit.data.reduced import decode_reduced
from detlit.errors import ImageReadError

__all__ = ["decode_image", "encoded_size", "image_size", "read_image", "to_rgb8", "write_image"]

_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return an image file as ``(H, W, 3)`` uint8 RGB.

    Grey images are repeated over the channels, and an alpha channel is dropped. 16-bit values are divided by the power
    of two that leaves 8 of the bits that the image uses: 8, 10, 12, 14 or 16, the least that hold its largest value, so
    that an image of a 12-bit camera is as bright as it should be. Floating-point values must be within [0, 1]. The
    orientation that cameras note in EXIF is applied, as image viewers do.

    Args:
        path: the image file.
        size: (height, width) that the annotations were made for. Where only the image without its EXIF rotation has
            that size, it is returned unrotated, so that boxes fit what they were drawn on. Orientations that keep the
            size (half turns, mirror images, square images) cannot be told apart and are applied.

    Raises:
        ImageReadError: the file is missing, no image, or contradicts ``size``.
    """
    return decode_image(_read_bytes(path), path, size)


def decode_image(data: NDArray[np.uint8], name: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return the bytes of an image file as ``(H, W, 3)`` uint8 RGB, by the rules of :func:`read_image`.

    Args:
        data: the bytes.
        name: of the image, for messages.
        size: (height, width) that the annotations were made for.

    Raises:
        ImageReadError: the bytes are no image, or contradict ``size``.
    """
    if (reduced := decode_reduced(data, size)) is not None:
        return reduced
    image = _decode(data, _COLOUR, name)
    if size is None or image.shape[:2] == size:
        return image
    unrotated = _decode(data, _COLOUR | cv2.IMREAD_IGNORE_ORIENTATION, name)
    if unrotated.shape[:2] == size:
        return unrotated
    raise ImageReadError(
        f"image {name} has {image.shape[1]}x{image.shape[0]} pixels, but its annotations say {size[1]}x{size[0]}: "
        "annotate this file, or restore the one that was annotated."
    )


def to_rgb8(image: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Return an array as ``(H, W, 3)`` uint8 RGB, by the rules of :func:`read_image`.

    Args:
        image: ``(H, W)`` grey, ``(H, W, 1)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA, of 8 or 16 bits, or floats.
        name: of the image, for messages.

    Raises:
        ImageReadError: another shape or type, or floating-point values outside [0, 1].
    """
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise ImageReadError(f"image {name} is an array {image.shape}: give (H, W), (H, W, 3) or (H, W, 4).")
    image = image[..., :3] if image.shape[2] == 4 else image
    return _to_8_bits(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))), name)


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
    return found if found is not None and size in (None, found) else _shape(read_image(path, size))


def encoded_size(data: bytes, name: str) -> tuple[int, int]:
    """Return (height, width) of the image that :func:`decode_image` returns, mostly without decoding it.

    Args:
        data: the bytes of an image file.
        name: of the image, for messages.

    Raises:
        ImageReadError: the bytes are no image.
    """
    return displayed_size(io.BytesIO(data)) or _shape(decode_image(np.frombuffer(data, dtype=np.uint8), name))


def _shape(image: NDArray[np.uint8]) -> tuple[int, int]:
    height, width = image.shape[:2]
    return height, width


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


def _decode(data: NDArray[np.uint8], flags: int, name: str | Path) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(data, flags) if data.size else None
        if image is None and data.size:  # grey floating-point TIFF is not turned into colours
            grey = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if grey is not None and grey.ndim == 2 else None
    except cv2.error:
        image = None
    if image is None:
        raise ImageReadError(f"image {name} cannot be decoded ({data.size} bytes): replace or remove the file.")
    return _to_8_bits(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), name)


def _to_8_bits(image: NDArray[Any], name: str | Path) -> NDArray[np.uint8]:
    """Return the pixels as uint8; :func:`read_image` states the rule."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        largest = int(image.max())
        bits = next(bits for bits in (8, 10, 12, 14, 16) if largest < 2**bits)
        return (image >> (bits - 8)).astype(np.uint8)
    if image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:
        scaled: NDArray[np.uint8] = np.rint(255 * image).astype(np.uint8)
        return scaled
    raise ImageReadError(
        f"image {name} holds {image.dtype} values from {image.min()} to {image.max()}: convert it to 8 or 16 bits."
    )
