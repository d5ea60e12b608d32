"""Adaptive training sample selection: assignment by geometry alone, for the first epochs of training."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.assigners.base import Assigner, Assignment
from detlit.assigners.grid import Integers
from detlit.assigners.matching import decode_at, resolve_claims, to_device
from detlit.errors import ConfigurationError
from detlit.ops.anchors import make_anchor_points
from detlit.ops.boxes import iou_of_sides
from detlit.ops.targets import BatchObjects
from detlit.structures import Level, RawPredictions

__all__ = ["ATSSAssigner"]

_ANCHOR_SCALE = 5.0
"""Side of an anchor square in strides; 5 in PP-YOLOE, 8 in the paper."""


class ATSSAssigner(Assigner):
    """Adaptive training sample selection, https://arxiv.org/abs/1912.02424, algorithm 1.

    Candidates are the ``topk`` anchor points of each level nearest to an object's centre, of equal ones those with the
    lowest index. A candidate is taken if it lies inside the box and the square of 5 strides around it overlaps the box
    by more than mean plus standard deviation over the object's candidates. Targets are the IoU of the predicted box.

    All but the targets follows from the boxes and the grid: the host works it out, in float64, so that it is the same
    on every device and in every precision.

    Args:
        topk: candidates per object and level; a level with fewer anchor points (an image of 64 pixels or less) gives
            all of them.

    Raises:
        ConfigurationError: ``topk`` below 1.
    """

    def __init__(self, topk: int = 9) -> None:
        if topk < 1:
            raise ConfigurationError(f"topk={topk} leaves no anchor points to assign: choose at least 1.")
        self.topk = topk

    @torch.no_grad()
    def __call__(self, predictions: RawPredictions, ground_truth: BatchObjects) -> Assignment:
        """Assign by distance and overlap with the anchor squares; see :meth:`Assigner.__call__`."""
        device, num_anchors = ground_truth.labels.device, predictions.cls_logits.shape[1]
        matches = self._match(predictions.levels, ground_truth, num_anchors)
        positions, objects = (to_device(column.numpy(), device) for column in matches)
        boxes = ground_truth.boxes.index_select(0, objects)
        scores = iou_of_sides(boxes.unbind(1), decode_at(predictions, positions).unbind())
        return Assignment(positions // num_anchors, positions % num_anchors, objects, scores)

    def _match(self, levels: Sequence[Level], ground_truth: BatchObjects, num_anchors: int) -> tuple[Tensor, Tensor]:
        """Return ``(P,)`` matched ``image * A + anchor`` and their objects, on the host."""
        points, strides = make_anchor_points(levels, dtype=torch.float64)
        squares = torch.cat((points - strides * (_ANCHOR_SCALE / 2), points + strides * (_ANCHOR_SCALE / 2)), dim=1)

        def squares_at(index: Tensor) -> list[Tensor]:
            return [side.index_select(0, index.flatten() % num_anchors).view_as(index) for side in columns]

        columns = squares.T.contiguous()
        boxes = torch.from_numpy(ground_truth.host_boxes)
        candidates = torch.from_numpy(_nearest(ground_truth.host_boxes, levels, self.topk))
        left, top, right, bottom = boxes.T[..., None]
        iou = iou_of_sides((left, top, right, bottom), squares_at(candidates), eps=1e-10)
        x, y = (side.index_select(0, candidates.flatten()).view_as(candidates) for side in points.T.contiguous())
        border = torch.minimum(torch.minimum(x - left, right - x), torch.minimum(y - top, bottom - y))
        mean = iou.mean(1, keepdim=True)
        deviation = ((iou - mean).square().sum(1, keepdim=True) / max(1, iou.shape[1] - 1)).sqrt()
        alone = iou.shape[1] == 1  # one level and topk=1: no candidate can exceed a mean of itself
        taken = (border > 1e-9) & ((iou > mean + deviation) | alone)
        taken &= ~torch.from_numpy(ground_truth.host_iscrowd)[:, None]

        images = torch.from_numpy(ground_truth.image_index())[:, None]
        positions = torch.where(taken, candidates + images * num_anchors, len(ground_truth.counts) * num_anchors)
        objects = torch.arange(len(boxes))[:, None].expand_as(positions)
        return resolve_claims(positions, objects, boxes, ground_truth, num_anchors, squares_at, eps=1e-10)


def _nearest(boxes: NDArray[np.float64], levels: Sequence[Level], topk: int) -> Integers:
    """Return ``(M, candidates)`` the ``topk`` anchor points of each level nearest to the centres of ``boxes (M, 4)``.

    Where the square of ``2 * block + 1`` cells around a centre, which holds ``topk``, lies on the level, they are in a
    slightly larger one, whose next cells are farther away than its corners. Elsewhere each column and each row can have
    all ``topk``, as one that runs along the border next to a centre outside the image.
    """
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    block = math.ceil((math.sqrt(topk) - 1) / 2)
    radius = math.ceil((block + 0.5) * math.sqrt(2) - 0.5)
    nearest, offset = [], 0
    for level in levels:
        height, width, stride = level
        last = np.array([width, height]) - 1
        cells = np.floor(centers / stride)
        interior = ((cells >= block) & (cells <= last - block)).all(1)
        cells = cells.clip(0, last).astype(np.int64)
        found = np.empty((len(boxes), min(topk, height * width)), dtype=np.int64)
        for rows, reach in ((interior, radius), (~interior, math.ceil(topk / 2))):
            found[rows] = _nearest_around(centers[rows], cells[rows], reach, level, topk)
        nearest.append(found + offset)
        offset += height * width
    return np.concatenate(nearest, axis=1)


def _nearest_around(centers: NDArray[np.float64], cells: Integers, reach: int, level: Level, topk: int) -> Integers:
    """Return ``(n, topk)`` the cells nearest to ``centers (n, 2)`` among those up to ``reach`` from ``cells (n, 2)``.

    Args:
        centers: xy pixels.
        cells: column and row that each window is around; a window is moved into the level.
        reach: how far the windows go left, right, up and down.
        level: the feature map.
        topk: how many, if there are so many; of equally near ones those with the lowest index.
    """
    axes = []
    for axis, length in ((0, level.width), (1, level.height)):
        window = min(2 * reach + 1, length)
        index = (cells[:, axis] - reach).clip(0, length - window)[:, None] + np.arange(window)
        axes.append((index, ((index + 0.5) * level.stride - centers[:, axis, None]) ** 2))
    (columns, dx), (rows, dy) = axes
    distances = (dy[:, :, None] + dx[:, None, :]).reshape(len(centers), rows.shape[1] * columns.shape[1])
    row, column = np.divmod(distances.argsort(1, kind="stable")[:, :topk], columns.shape[1])
    nearest: Integers = np.take_along_axis(rows, row, 1) * level.width + np.take_along_axis(columns, column, 1)
    return nearest
