"""Mosaics of four images."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import Sample
from detlit.data.transforms.base import SampleSource, Transform, checked_probability
from detlit.errors import ConfigurationError
from detlit.structures import Preprocessing

__all__ = ["Mosaic"]


class Mosaic(Transform):
    """Put three other images beside the sample (YOLOv4, https://arxiv.org/abs/2004.10934).

    Four images, each letterboxed to the network input, meet at a random point of the middle half of a canvas twice as
    wide and high, and the network input is the middle of that canvas. No such canvas is made: each image is drawn
    straight to where it ends up, geometric transforms included.

    Args:
        probability: of doing so.
        partners: where the other images come from: ``"dataset"``, or ``"batch"``, the images that the batch consists of
            anyway, so that one image is decoded per mosaic instead of four. Outside a training loader there is no
            batch, and they come from the data set.

    Raises:
        ConfigurationError: an unknown source of partners, or no probability.
    """

    def __init__(self, probability: float = 1.0, partners: Literal["dataset", "batch"] = "dataset") -> None:
        self.probability = checked_probability(probability)
        if partners not in ("dataset", "batch"):
            raise ConfigurationError(f"partners={partners!r} is unknown: choose 'dataset' or 'batch'.")
        self.partners = partners

    def tiles(
        self, sample: Sample, source: SampleSource, preprocessing: Preprocessing, generator: np.random.Generator
    ) -> list[tuple[Sample, NDArray[np.float64]]] | None:
        """Return four samples, each with its ``(3, 3)`` map into the network input, or ``None`` for no mosaic.

        Args:
            sample: goes to the top left.
            source: where the others come from.
            preprocessing: of the network input.
            generator: of everything random.
        """
        if generator.random() >= self.probability:
            return None
        height, width = preprocessing.size
        meeting_point = generator.uniform(0.0, 1.0, 2) * (width, height)
        others = [source.load_sample(index) for index in self._partners(sample, len(source), generator)]
        samples = [sample, *others]
        corners = ((1, 1), (0, 1), (1, 0), (0, 0))  # of the tile that lies on the meeting point
        return [
            (tile, _tile_matrix(tile, corner, meeting_point, preprocessing))
            for tile, corner in zip(samples, corners, strict=True)
        ]

    def _partners(self, sample: Sample, num_images: int, generator: np.random.Generator) -> list[int]:
        """Return the positions of three images, drawn with equal probability."""
        if self.partners == "batch" and sample.request is not None and sample.request.batch:
            drawn: NDArray[np.int64] = generator.choice(np.array(sample.request.batch), size=3)
        else:
            drawn = generator.integers(num_images, size=3)
        return [int(index) for index in drawn]


def _tile_matrix(
    tile: Sample, corner: tuple[int, int], meeting_point: NDArray[np.float64], preprocessing: Preprocessing
) -> NDArray[np.float64]:
    """Return the map that scales a tile as the letterbox does and puts one of its corners on a point."""
    height, width = tile.orig_size
    scale_x, scale_y = preprocessing.geometry(height, width)[:2]
    size = np.array([width * scale_x, height * scale_y])
    left, top = meeting_point - size * corner
    image_scale_x, image_scale_y = tile.geometry[:2]
    return np.array([[scale_x / image_scale_x, 0.0, left], [0.0, scale_y / image_scale_y, top], [0.0, 0.0, 1.0]])
