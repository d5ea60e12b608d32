"""Cut-outs."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import Sample
from detlit.data.transforms.base import SampleTransform, checked_probability
from detlit.errors import ConfigurationError

__all__ = ["CutOut"]


class CutOut(SampleTransform):
    """Paint rectangles in the colour of the padding over the image (https://arxiv.org/abs/1708.04552).

    Objects of which too much is hidden are left out; the boxes of the others stay whole.

    Args:
        holes: (least, largest) number of rectangles.
        size: (least, largest) side of a rectangle as a part of the input's side, drawn for each side.
        max_hidden: largest part of a box that may be painted over.
        probability: of doing so.

    Raises:
        ConfigurationError: a range or a part that is none.
    """

    def __init__(
        self,
        holes: tuple[int, int] = (1, 4),
        size: tuple[float, float] = (0.05, 0.2),
        max_hidden: float = 0.6,
        probability: float = 0.5,
    ) -> None:
        if not 1 <= holes[0] <= holes[1]:
            raise ConfigurationError(f"holes={tuple(holes)} is no range of numbers: give (least, largest), from 1.")
        if not 0 < size[0] <= size[1] <= 1:
            raise ConfigurationError(
                f"size={tuple(size)} is no range of parts: give (least, largest), above 0, up to 1."
            )
        if not 0 <= max_hidden <= 1:
            raise ConfigurationError(f"max_hidden={max_hidden} is no part of a box: give a number from 0 to 1.")
        self.holes, self.size, self.max_hidden = holes, size, max_hidden
        self.probability = checked_probability(probability)

    def __call__(self, sample: Sample, generator: np.random.Generator, pad_value: int) -> Sample:
        """Return the sample with holes and without the objects they hide."""
        if generator.random() >= self.probability:
            return sample
        height, width = sample.image.shape[:2]
        image, hidden = sample.image.copy(), np.zeros((height, width), dtype=np.bool_)
        for _ in range(int(generator.integers(self.holes[0], self.holes[1] + 1))):
            sides = np.maximum(1, np.rint(generator.uniform(*self.size, 2) * (width, height))).astype(int)
            left, top = (generator.random(2) * ((width, height) - sides + 1)).astype(int)
            hole = (slice(top, top + sides[1]), slice(left, left + sides[0]))
            image[hole] = pad_value
            hidden[hole] = True
        kept = _hidden_parts(sample.boxes, hidden) <= self.max_hidden
        return replace(
            sample, image=image, boxes=sample.boxes[kept], labels=sample.labels[kept], iscrowd=sample.iscrowd[kept]
        )


def _hidden_parts(boxes: NDArray[np.float64], hidden: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return ``(N,)`` which part of the pixels of each box is hidden."""
    parts = np.zeros(len(boxes))
    for number, (left, top) in enumerate(np.floor(boxes[:, :2]).astype(int)):
        right, bottom = np.ceil(boxes[number, 2:]).astype(int)
        parts[number] = hidden[top:bottom, left:right].mean()
    return parts
