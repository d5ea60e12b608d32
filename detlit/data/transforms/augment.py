"""Augmentation in one pass: all geometry is composed with the letterbox and every image is interpolated once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from detlit.data.sample import Sample
from detlit.data.transforms.base import (
    BatchTransform,
    GeometricTransform,
    PhotometricTransform,
    SampleSource,
    SampleTransform,
    Transform,
)
from detlit.data.transforms.canvas import Region, draw_samples, region_of
from detlit.data.transforms.letterbox import Letterbox, letterbox_matrix, resized
from detlit.data.transforms.mixup import Mixup
from detlit.data.transforms.mosaic import Mosaic
from detlit.errors import ConfigurationError
from detlit.structures import Preprocessing

__all__ = ["Augment"]

_WHOLE: Region = (slice(None), slice(None))
_Kind = TypeVar("_Kind", bound=Transform)
_KINDS = (GeometricTransform, PhotometricTransform, SampleTransform, BatchTransform, Mosaic, Mixup)


class Augment:
    """Letterbox and augment samples for training.

    A mosaic comes first. The geometric transforms are applied in their order after it or after the letterbox, in the
    same interpolation; then mixup; then the rest, in their order. Boxes are cut off at the edges of the network input,
    and left out where too little of them is left, see :func:`~detlit.data.transforms.warp.visible_boxes`.

    The result counts as an image of its own: it has no originals, the identity as geometry, and its own size as
    ``orig_size``. What the sampler asked for, ``sample.request``, decides on the size and on whether images may be
    combined. Colours change where images are, so that padding looks as in validation.

    Args:
        preprocessing: size, padding and rounding of the network input.
        transforms: augmentations; without any this is :class:`~detlit.data.transforms.Letterbox`. Those of whole
            batches are left to the data module.
        source: where mosaic and mixup take other samples from.

    Raises:
        ConfigurationError: a transform of no known kind, mosaic or mixup twice, or without ``source``.
    """

    def __init__(
        self, preprocessing: Preprocessing, transforms: Sequence[Transform], source: SampleSource | None = None
    ) -> None:
        for transform in transforms:
            if not isinstance(transform, _KINDS):
                raise ConfigurationError(
                    f"augmentation {type(transform).__name__} says neither where pixels go nor how colours change: "
                    "derive it from GeometricTransform, PhotometricTransform, SampleTransform or BatchTransform."
                )
        self.preprocessing = preprocessing
        self.source = source
        self.mosaic = _only(Mosaic, transforms)
        self.mixup = _only(Mixup, transforms)
        self.geometric = [transform for transform in transforms if isinstance(transform, GeometricTransform)]
        self.others = [
            transform for transform in transforms if isinstance(transform, (PhotometricTransform, SampleTransform))
        ]
        if source is None and (self.mosaic or self.mixup):
            raise ConfigurationError(
                "Mosaic and Mixup combine a sample with others: use DetectionDataModule, or give Augment a source."
            )

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return the sample in network input pixels, augmented at random."""
        request = sample.request
        preprocessing = self.preprocessing
        if request is not None and request.size is not None:
            preprocessing = resized(preprocessing, request.size)
        alone = request is not None and not request.mosaic
        sample, region = self._placed(sample, preprocessing, generator, alone)
        if self.mixup is not None and self.source is not None and not alone:
            mixed = self.mixup(sample, self.source, preprocessing, generator)
            sample, region = mixed, region if mixed is sample else _WHOLE
        for transform in self.others:
            if isinstance(transform, SampleTransform):
                sample, region = transform(sample, generator, preprocessing.pad_value), _WHOLE
            else:
                image = sample.image if sample.image.flags.writeable else sample.image.copy()
                if (part := image[region]).size:
                    image[region] = transform(part, generator)
                sample = replace(sample, image=image)
        if sample.image.shape[:2] != preprocessing.size:
            sample = Letterbox(preprocessing)(sample)
        return sample

    def _placed(
        self, sample: Sample, preprocessing: Preprocessing, generator: np.random.Generator, alone: bool
    ) -> tuple[Sample, Region]:
        """Return the sample, or a mosaic with it, moved into the network input, and the part of that which it fills."""
        tiles = None
        if self.mosaic is not None and self.source is not None and not alone:
            tiles = self.mosaic.tiles(sample, self.source, preprocessing, generator)
        if tiles is None:
            tiles = [(sample, letterbox_matrix(preprocessing, sample))]
            if not self.geometric:
                return Letterbox(preprocessing)(sample), region_of(tiles, preprocessing)
        height, width = preprocessing.size
        change = np.eye(3)
        for transform in self.geometric:
            change = transform.matrix(height, width, generator) @ change
        tiles = [(tile, change @ matrix) for tile, matrix in tiles]
        return draw_samples(tiles, preprocessing), region_of(tiles, preprocessing)


def _only(kind: type[_Kind], transforms: Sequence[Transform]) -> _Kind | None:
    """Return the transform of a kind, if there is one."""
    found = [transform for transform in transforms if isinstance(transform, kind)]
    if len(found) > 1:
        raise ConfigurationError(f"augmentations list {kind.__name__} {len(found)} times: keep one.")
    return found[0] if found else None
