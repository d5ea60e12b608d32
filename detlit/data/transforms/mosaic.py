"""Mosaics of four images."""

import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import Sample
from detlit.data.transforms.base import SampleSource, Transform, checked_probability
from detlit.structures import Preprocessing

__all__ = ["Mosaic"]


class Mosaic(Transform):
    """Put three other images beside the sample (YOLOv4, https://arxiv.org/abs/2004.10934).

    Four images, each letterboxed to the network input, meet at a random point of the middle half of a canvas twice as
    wide and high, and the network input is the middle of that canvas. No such canvas is made: each image is drawn
    straight to where it ends up, geometric transforms included.

    Args:
        probability: of doing so.
    """

    def __init__(self, probability: float = 1.0) -> None:
        self.probability = checked_probability(probability)

    def tiles(
        self, sample: Sample, source: SampleSource, preprocessing: Preprocessing, generator: np.random.Generator
    ) -> list[tuple[Sample, NDArray[np.float64]]] | None:
        """Return four samples, each with its ``(3, 3)`` map into the network input, or ``None`` for no mosaic.

        Args:
            sample: goes to the top left.
            source: where the others come from, drawn with equal probability.
            preprocessing: of the network input.
            generator: of everything random.
        """
        if generator.random() >= self.probability:
            return None
        height, width = preprocessing.size
        meeting_point = generator.uniform(0.0, 1.0, 2) * (width, height)
        others = [source.load_sample(int(index)) for index in generator.integers(len(source), size=3)]
        samples = [sample, *others]
        corners = ((1, 1), (0, 1), (1, 0), (0, 0))  # of the tile that lies on the meeting point
        return [
            (tile, _tile_matrix(tile, corner, meeting_point, preprocessing))
            for tile, corner in zip(samples, corners, strict=True)
        ]


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
