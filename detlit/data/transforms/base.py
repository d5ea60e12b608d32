"""What an augmentation can be."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from detlit.data.sample import Sample
from detlit.errors import ConfigurationError
from detlit.spec import Recorded

__all__ = [
    "BatchTransform",
    "GeometricTransform",
    "PhotometricTransform",
    "SampleSource",
    "SampleTransform",
    "Transform",
    "checked_probability",
]


class SampleSource(Protocol):
    """Where samples come from: every :class:`~detlit.data.DetectionDataset` is one."""

    def __len__(self) -> int:
        """Return the number of images."""

    def load_sample(self, index: int) -> Sample:
        """Return image number ``index`` and its objects, untransformed."""


class Transform(Recorded, ABC):
    """Base of augmentations: derive from one of its subclasses, which say when it is applied."""


class GeometricTransform(Transform):
    """An augmentation that moves pixels, and boxes with them."""

    @abstractmethod
    def matrix(self, height: int, width: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return ``(3, 3)`` a random affine map of the network input of ``height`` by ``width`` onto itself.

        It maps continuous pixel coordinates, in which pixel 0 reaches from 0 to 1.
        """


class PhotometricTransform(Transform):
    """An augmentation that changes colours."""

    @abstractmethod
    def __call__(self, image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
        """Return a changed copy of ``image`` ``(H, W, 3)`` uint8 RGB, or the image itself where nothing changes."""


class SampleTransform(Transform):
    """An augmentation that changes image and objects together."""

    @abstractmethod
    def __call__(self, sample: Sample, generator: np.random.Generator, pad_value: int) -> Sample:
        """Return a changed copy of ``sample``, whose image is the network input, padded with the grey ``pad_value``."""


class BatchTransform(Transform):
    """An augmentation of whole batches on the device, which :class:`~detlit.data.DetectionDataModule` applies."""

    @abstractmethod
    def __call__(self, images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Return changed ``images`` ``(B, 3, H, W)`` uint8, each drawn from a generator of its own on the host."""


def checked_probability(probability: float) -> float:
    """Return ``probability`` if it is one.

    Raises:
        ConfigurationError: a value below 0 or above 1.
    """
    if not 0 <= probability <= 1:
        raise ConfigurationError(f"probability={probability} is none: give a number from 0 to 1.")
    return probability
