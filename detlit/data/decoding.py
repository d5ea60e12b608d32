"""How a data set's images are had: decoded, decoded at a reduced scale, or from a cache."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from detlit.data.reduced import ReducedDecoding
from detlit.errors import DatasetError
from detlit.structures import Preprocessing

__all__ = ["Decoded", "Decoding", "ImageCache", "LoadsImages"]


class Decoded(NamedTuple):
    """An image as decoded.

    Attributes:
        image: ``(h, w, 3)`` uint8 RGB.
        factor: by which the sides of the file's image were divided in decoding.
        size: (height, width) of the file's image.
    """

    image: NDArray[np.uint8]
    factor: int
    size: tuple[int, int]


class LoadsImages(Protocol):
    """What loads images: every :class:`~detlit.data.DetectionDataset` does."""

    def load_image(self, index: int) -> NDArray[np.uint8]:
        """Return image number ``index`` as ``(H, W, 3)`` uint8 RGB."""


class ImageCache(Protocol):
    """Keeps decoded images, see :mod:`detlit.data.image_cache`; their pixels are read-only."""

    def get(self, index: int, decode: Callable[[], Decoded]) -> Decoded:
        """Return image number ``index``, from ``decode`` where it is not kept yet."""


class Decoding:
    """How the images of a data set are decoded.

    Args:
        reduced_for: decode JPEG files at a half, a quarter or an eighth where they stay at least as large as this
            network input.
        cache: keeps decoded images.
        keep: number of images, those decoded last, that are kept where there is no cache, for mosaics of one batch.
    """

    def __init__(
        self, reduced_for: Preprocessing | None = None, cache: ImageCache | None = None, keep: int = 0
    ) -> None:
        self.reduced_for = reduced_for
        self.cache = cache
        self.keep = keep
        self._kept: OrderedDict[int, Decoded] = OrderedDict()

    def load(self, source: LoadsImages, index: int) -> Decoded:
        """Return image number ``index``."""
        if self.cache is not None:
            return self.cache.get(index, lambda: self.decode(source, index))
        if self.keep == 0:
            return self.decode(source, index)
        if index not in self._kept:
            decoded = self.decode(source, index)
            pixels = decoded.image.view()  # the array itself may be the user's own
            pixels.flags.writeable = False
            self._kept[index] = decoded._replace(image=pixels)
            if len(self._kept) > self.keep:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]

    def decode(self, source: LoadsImages, index: int) -> Decoded:
        """Return image number ``index`` without a look at the cache."""
        if self.reduced_for is not None:
            reduced = ReducedDecoding(self.reduced_for)
            with reduced.allowed():
                image = _loaded(source, index)
            if image is reduced.image:
                return Decoded(image, reduced.factor, reduced.size)
            if reduced.image is None:
                return Decoded(image, 1, image.shape[:2])
        # also where load_image changed what it had read: boxes would not fit a change of a smaller image
        image = _loaded(source, index)
        return Decoded(image, 1, image.shape[:2])


def _loaded(source: LoadsImages, index: int) -> NDArray[np.uint8]:
    """Return an image, or refuse what is none."""
    image = source.load_image(index)
    if not isinstance(image, np.ndarray):
        raise DatasetError(
            f"{type(source).__name__}.load_image({index}) returned {type(image).__name__}: return a uint8 array of "
            "shape (H, W, 3)."
        )
    return image
