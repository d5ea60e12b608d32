"""Which cells of the feature maps lie inside boxes: numbers the host works out from the ground truth alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detlit.structures import Level

__all__ = ["Rectangles", "cells_inside"]

Integers = NDArray[np.int64]


class Rectangles(NamedTuple):
    """The cells inside each of ``M`` boxes, one rectangle per level, each ``(M, levels)``.

    Attributes:
        left: first column.
        top: first row.
        columns: how many, 0 where no cell lies inside.
        rows: how many, 0 where no cell lies inside.
    """

    left: Integers
    top: Integers
    columns: Integers
    rows: Integers

    def counts(self) -> Integers:
        """Return ``(M,)`` cells of all levels together."""
        counts: Integers = (self.columns * self.rows).sum(1)
        return counts

    def runs(
        self, objects: Integers, offsets: Integers, levels: Sequence[Level], width: int
    ) -> tuple[Integers, Integers]:
        """Return the cells of some objects, row by row, as runs of consecutive anchor points.

        Args:
            objects: ``(n,)`` rows of the boxes.
            offsets: ``(n,)`` number of each object's first anchor point.
            levels: the feature maps.
            width: anchor points to return per object; a last run, of no meaning, fills up.

        Returns:
            ``(R,)`` first anchor points and ``(R,)`` lengths, object after object, anchor points ascending.
        """
        sizes = np.array([level.height * level.width for level in levels])
        steps = np.array([level.width for level in levels])
        firsts = offsets[:, None] + np.cumsum(sizes) - sizes + self.top[objects] * steps + self.left[objects]
        rows, columns = self.rows[objects], self.columns[objects]
        filling = width - (rows * columns).sum(1)

        rows = np.column_stack((rows, np.ones_like(filling))).ravel()
        row = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
        starts = np.repeat(np.column_stack((firsts, offsets)).ravel(), rows)
        starts += row * np.repeat(np.tile(np.append(steps, 0), len(objects)), rows)
        return starts, np.repeat(np.column_stack((columns, filling)).ravel(), rows)

    def covered(self, images: Integers, num_images: int, levels: Sequence[Level]) -> Integers:
        """Return the anchor points of a batch inside some box, as ascending ``image * A + anchor``.

        Args:
            images: ``(M,)`` image of each box.
            num_images: ``B``.
            levels: the feature maps.
        """
        masks = []
        for index, (height, width, _) in enumerate(levels):
            left, top = self.left[:, index], self.top[:, index]
            right, bottom = left + self.columns[:, index], top + self.rows[:, index]
            # The sum over all cells left of and above a cell counts the rectangles around it.
            corners = np.zeros((num_images, height + 1, width + 1), dtype=np.int32)
            for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
                np.add.at(corners, (images, y, x), sign)
            masks.append((corners.cumsum(1).cumsum(2)[:, :-1, :-1] > 0).reshape(num_images, -1))
        return np.flatnonzero(np.concatenate(masks, axis=1))


def cells_inside(boxes: NDArray[np.float64], levels: Sequence[Level]) -> Rectangles:
    """Return the cells whose centres lie inside xyxy ``boxes (M, 4)``, by more than 1e-9 pixels on each side."""
    sides = []
    for height, width, stride in levels:
        x, y = ((np.arange(size) + 0.5) * stride for size in (width, height))
        left, top = x.searchsorted(boxes[:, 0] + 1e-9, "right"), y.searchsorted(boxes[:, 1] + 1e-9, "right")
        right, bottom = x.searchsorted(boxes[:, 2] - 1e-9, "left"), y.searchsorted(boxes[:, 3] - 1e-9, "left")
        columns, rows = np.maximum(right - left, 0), np.maximum(bottom - top, 0)
        sides.append((left, top, columns * (rows > 0), rows * (columns > 0)))
    return Rectangles(*(np.stack(column, axis=1) for column in zip(*sides, strict=True)))
