"""JPEG decoding at a half, a quarter or an eighth, which costs less than to decode whole and shrink."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.image_header import displayed_size
from detlit.structures import Preprocessing

__all__ = ["ReducedDecoding", "decode_reduced"]

_FLAGS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}

_ACTIVE: ContextVar["ReducedDecoding | None"] = ContextVar("reduced_decoding", default=None)


class ReducedDecoding:
    """What :func:`~detlit.data.images.read_image` may do, and did, while a data set loads an image.

    Args:
        preprocessing: of the network input, which images stay at least as large as.

    Attributes:
        image: the image that was decoded at a reduced scale last.
        factor: by which its sides are divided, 2, 4 or 8.
        size: (height, width) of the whole image.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.image: NDArray[np.uint8] | None = None
        self.factor = 1
        self.size = (0, 0)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let ``read_image`` reduce what it decodes."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)


def decode_reduced(data: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8] | None:
    """Return a JPEG file's image ``(h, w, 3)`` uint8 RGB at the smallest scale that is enough, if that is asked for.

    ``None`` where :class:`ReducedDecoding` is not active, the file is no JPEG, has another size than ``size``, or is
    less than twice as large as the network input.

    Args:
        data: the bytes of the file.
        size: (height, width) that the annotations were made for, if known.
    """
    wish = _ACTIVE.get()
    if wish is None or data[:2].tobytes() != b"\xff\xd8":
        return None
    found = displayed_size(io.BytesIO(data.tobytes()))
    if found is None or (size is not None and found != size):
        return None
    content = wish.preprocessing.content_shape(*found)
    factor = next((f for f in _FLAGS if found[0] >= f * content[0] and found[1] >= f * content[1]), None)
    image = None if factor is None else cv2.imdecode(data, _FLAGS[factor])
    if factor is None or image is None or image.shape[:2] != (-(-found[0] // factor), -(-found[1] // factor)):
        return None
    wish.image, wish.factor, wish.size = cv2.cvtColor(image, cv2.COLOR_BGR2RGB), factor, found  # type: ignore[assignment]
    return wish.image
