"""Augmentation in one pass: all geometry is composed with the letterbox and every image is interpolated once."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import Sample
from detlit.data.transforms.letterbox import Letterbox, letterbox_matrix
from detlit.data.transforms.warp import visible_boxes, warp_boxes, warp_image
from detlit.errors import ConfigurationError
from detlit.spec import Recorded
from detlit.structures import Preprocessing

__all__ = ["Augment", "GeometricTransform", "PhotometricTransform", "Transform"]


class Transform(Recorded, ABC):
    """Base of augmentations: see :class:`GeometricTransform` and :class:`PhotometricTransform`."""


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
        """Return a changed copy of ``image`` ``(H, W, 3)`` uint8 RGB."""


class Augment:
    """Letterbox and augment samples for training.

    The geometric transforms are applied first, in their order, after the letterbox and in the same interpolation; then
    the photometric ones in theirs. Boxes are cut off at the edges of the network input, and left out where too little
    of them is left, see :func:`~detlit.data.transforms.warp.visible_boxes`.

    The result counts as an image of its own: it has no originals, the identity as geometry, and its own size as
    ``orig_size``.

    Args:
        preprocessing: size, padding and rounding of the network input.
        transforms: augmentations; without any this is :class:`~detlit.data.transforms.Letterbox`.

    Raises:
        ConfigurationError: a transform that is neither geometric nor photometric.
    """

    def __init__(self, preprocessing: Preprocessing, transforms: Sequence[Transform]) -> None:
        self.preprocessing = preprocessing
        self.geometric = [transform for transform in transforms if isinstance(transform, GeometricTransform)]
        self.photometric = [transform for transform in transforms if isinstance(transform, PhotometricTransform)]
        for transform in transforms:
            if not isinstance(transform, (GeometricTransform, PhotometricTransform)):
                raise ConfigurationError(
                    f"augmentation {type(transform).__name__} says neither where pixels go nor how colours change: "
                    "derive it from GeometricTransform or PhotometricTransform."
                )

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return the sample in network input pixels, augmented at random."""
        sample = self._warp(sample, generator) if self.geometric else Letterbox(self.preprocessing)(sample)
        image = sample.image
        for transform in self.photometric:
            image = transform(image, generator)
        return replace(sample, image=image)

    def _warp(self, sample: Sample, generator: np.random.Generator) -> Sample:
        height, width = self.preprocessing.size
        matrix = letterbox_matrix(self.preprocessing, *sample.image.shape[:2])
        for transform in self.geometric:
            matrix = transform.matrix(height, width, generator) @ matrix
        boxes, kept = visible_boxes(warp_boxes(sample.boxes, matrix), height, width)
        return replace(
            sample,
            image=warp_image(sample.image, matrix, height, width, self.preprocessing.pad_value),
            boxes=boxes[kept],
            labels=sample.labels[kept],
            iscrowd=sample.iscrowd[kept],
            orig_size=(height, width),
            geometry=(1.0, 1.0, 0.0, 0.0),
            originals=None,
        )
