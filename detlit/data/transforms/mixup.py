"""Mixtures of two images."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import Sample
from detlit.data.transforms.base import SampleSource, Transform, checked_probability
from detlit.data.transforms.canvas import draw_samples
from detlit.data.transforms.letterbox import letterbox_matrix
from detlit.errors import ConfigurationError
from detlit.structures import Preprocessing

__all__ = ["Mixup"]

_ATTEMPTS = 10


class Mixup(Transform):
    """Blend the sample with another one in equal parts and keep the objects of both (https://arxiv.org/abs/1710.09412).

    The other image is letterboxed, scaled, perhaps mirrored, and shifted at random; as in YOLOX it has objects, if any
    of ten images drawn for it has.

    Args:
        probability: of doing so.
        scale: (least, largest) factor of the other image.
        flip_probability: of mirroring the other image left and right.

    Raises:
        ConfigurationError: a scale or a probability that is none.
    """

    def __init__(
        self, probability: float = 0.5, scale: tuple[float, float] = (0.5, 1.5), flip_probability: float = 0.5
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise ConfigurationError(f"scale={tuple(scale)} is no range of factors: give (least, largest), above 0.")
        self.probability = checked_probability(probability)
        self.scale = scale
        self.flip_probability = checked_probability(flip_probability)

    def __call__(
        self, sample: Sample, source: SampleSource, preprocessing: Preprocessing, generator: np.random.Generator
    ) -> Sample:
        """Return ``sample``, whose image is the network input, or a mixture with one from ``source``."""
        if generator.random() >= self.probability:
            return sample
        other = self._other(source, generator)
        other = draw_samples([(other, self._matrix(other, preprocessing, generator))], preprocessing)
        return replace(
            other,
            image=cv2.addWeighted(sample.image, 0.5, other.image, 0.5, 0.0),  # type: ignore[arg-type]
            boxes=np.concatenate([sample.boxes, other.boxes]),
            labels=np.concatenate([sample.labels, other.labels]),
            iscrowd=np.concatenate([sample.iscrowd, other.iscrowd]),
            image_id=sample.image_id,
            dataset_index=sample.dataset_index,
            path=sample.path,
            request=sample.request,
        )

    def _other(self, source: SampleSource, generator: np.random.Generator) -> Sample:
        for _ in range(_ATTEMPTS):
            other = source.load_sample(int(generator.integers(len(source))))
            if len(other.boxes):
                break
        return other

    def _matrix(
        self, other: Sample, preprocessing: Preprocessing, generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return ``(3, 3)`` the map of the other image into the network input."""
        height, width = preprocessing.size
        factor = generator.uniform(*self.scale)
        mirror = generator.random() < self.flip_probability
        free = np.array([width, height]) * (1 - factor)  # negative where the image is larger than the canvas
        left, top = generator.uniform(0.0, 1.0, 2) * free
        change = np.array([[factor, 0.0, left], [0.0, factor, top], [0.0, 0.0, 1.0]])
        if mirror:
            change = change @ np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        return change @ letterbox_matrix(preprocessing, other)
