"""Task-aligned assignment: the anchor points that classify and localise an object best learn it."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detlit.assigners.base import Assigner, Assignment
from detlit.assigners.grid import Integers, Rectangles, cells_inside
from detlit.assigners.matching import chunk_size, decode_at, first_largest, resolve_claims, to_device
from detlit.errors import ConfigurationError
from detlit.ops.boxes import full_precision, iou_of_sides
from detlit.ops.targets import BatchObjects
from detlit.structures import Level, RawPredictions

__all__ = ["TaskAlignedAssigner"]


class TaskAlignedAssigner(Assigner):
    """Task-aligned assigner of TOOD, https://arxiv.org/abs/2108.07755.

    Each object takes the ``topk`` anchor points inside its box with the largest alignment ``t = s**alpha * u**beta``,
    ``s`` the predicted score of its class and ``u`` the IoU of the predicted box with it; of equal ones those with the
    lowest index. Targets are ``t`` scaled so that an object's largest is its largest ``u``.

    Only pairs of an object and an anchor point inside it are looked at. They form a rectangle of cells on each level,
    so the host knows from the boxes how many there are and need not ask the device.

    Args:
        topk: anchor points per object; an object with fewer inside its box takes all of them.
        alpha: exponent of the score.
        beta: exponent of the IoU.

    Raises:
        ConfigurationError: ``topk`` below 1, or an exponent that is negative or not finite.
    """

    def __init__(self, topk: int = 13, alpha: float = 1.0, beta: float = 6.0) -> None:
        if topk < 1:
            raise ConfigurationError(f"topk={topk} leaves no anchor points to assign: choose at least 1.")
        for name, exponent in (("alpha", alpha), ("beta", beta)):
            if not 0 <= exponent < math.inf:
                raise ConfigurationError(f"{name}={exponent} is no exponent: choose a finite number, 0 or more.")
        self.topk = topk
        self.alpha = alpha
        self.beta = beta

    @torch.no_grad()
    def __call__(self, predictions: RawPredictions, ground_truth: BatchObjects) -> Assignment:
        """Assign by alignment; see :meth:`Assigner.__call__`."""
        boxes = np.where(ground_truth.host_iscrowd[:, None], 0, ground_truth.host_boxes)  # nothing is inside a crowd
        rectangles = cells_inside(boxes, predictions.levels)
        num_anchors = len(predictions.anchor_points)
        offsets, topk = ground_truth.image_index() * num_anchors, min(self.topk, num_anchors)
        sides = _decode_inside(predictions, ground_truth, rectangles)
        pairs = _Pairs(predictions.cls_logits, sides, ground_truth, self.alpha, self.beta)

        positions, objects = [], []
        for chunk in _chunks(rectangles.counts(), topk, chunk_size(sides[0].device)):
            claimed, claimants = _claim(pairs, rectangles, chunk, offsets[chunk], predictions.levels, topk)
            positions.append(claimed)
            objects.append(claimants)
        return _settle(pairs, positions, objects)


class _Pairs(NamedTuple):
    """What the quality of a pair of object and anchor point is computed from.

    Attributes:
        cls_logits: ``(B, A, C)``.
        sides: of the predicted boxes, each ``(B * A,)``; 0 for those inside no object.
        ground_truth: the objects.
        alpha: exponent of the score.
        beta: exponent of the IoU.
    """

    cls_logits: Tensor
    sides: list[Tensor]
    ground_truth: BatchObjects
    alpha: float
    beta: float

    @property
    def num_positions(self) -> int:
        return len(self.sides[0])

    def predicted(self, positions: Tensor) -> list[Tensor]:
        """Return the sides of the boxes predicted at the positions, each in their shape."""
        return [side.index_select(0, positions.flatten()).view_as(positions) for side in self.sides]

    def alignment_and_iou(self, positions: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``s**alpha * u**beta`` and ``u`` of pairs; positions and objects broadcast."""
        truth = self.ground_truth
        boxes = truth.boxes.index_select(0, objects.flatten()).view(*objects.shape, 4)
        iou = iou_of_sides(boxes.unbind(-1), self.predicted(positions))
        labels = truth.labels.index_select(0, objects.flatten()).view_as(objects)
        classes = (positions * self.cls_logits.shape[-1]).add_(labels)
        logits = self.cls_logits.reshape(-1).index_select(0, classes.flatten()).view_as(classes)
        alignment = full_precision(logits).sigmoid().pow(self.alpha).mul_(iou.pow(self.beta))
        return alignment, iou


def _claim(
    pairs: _Pairs,
    rectangles: Rectangles,
    chunk: Integers,
    offsets: Integers,
    levels: tuple[Level, ...],
    topk: int,
) -> tuple[Tensor, Tensor]:
    """Return the ``(n * topk,)`` positions that the ``n`` objects of a chunk claim, and these objects.

    An object of fewer than ``topk`` cells claims the position ``B * A``, which is none, for the rest.
    """
    counts = rectangles.counts()[chunk]
    width = max(int(counts.max()), topk)
    starts, lengths = rectangles.runs(chunk, offsets, levels, width)
    starts -= np.cumsum(lengths) - lengths

    size = len(chunk)
    packed = to_device(np.concatenate((chunk, counts, starts, lengths)), pairs.ground_truth.labels.device)
    objects, number, shifts, repeats = torch.split(packed, [size, size, len(starts), len(lengths)])
    cells = torch.arange(size * width, device=packed.device)
    cells += torch.repeat_interleave(shifts, repeats, output_size=size * width)
    cells, number = cells.view(size, width), number[:, None]

    alignment, _ = pairs.alignment_and_iou(cells, objects[:, None])
    filling = torch.arange(width, device=packed.device) >= number
    chosen = first_largest(alignment.masked_fill_(filling, -1), topk)
    claimed = cells.gather(1, chosen).masked_fill_(chosen >= number, pairs.num_positions)
    return claimed.flatten(), objects.repeat_interleave(topk)


def _decode_inside(predictions: RawPredictions, ground_truth: BatchObjects, rectangles: Rectangles) -> list[Tensor]:
    """Return the sides of the predicted boxes, each ``(B * A,)``, where the anchor point is inside some object."""
    covered = rectangles.covered(ground_truth.image_index(), len(ground_truth.counts), predictions.levels)
    num_positions = predictions.cls_logits.shape[0] * predictions.cls_logits.shape[1]
    sides = [ground_truth.boxes.new_zeros(num_positions) for _ in range(4)]
    for chunk in torch.split(to_device(covered, sides[0].device), chunk_size(sides[0].device) // 16):
        for side, values in zip(sides, decode_at(predictions, chunk), strict=True):
            side.index_copy_(0, chunk, values)
    return sides


def _chunks(counts: Integers, topk: int, limit: int) -> Iterator[Integers]:
    """Yield the objects that have cells, those with similar ``counts`` together, so that they fit rows of one width.

    ``limit`` bounds the rows times their width.
    """
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    widths = np.maximum(counts[order], topk)
    first = 0
    while first < len(order):
        width = int(widths[first])
        narrowest = width // 2 if width > 64 else 0
        similar = int(np.searchsorted(-widths, -narrowest, side="right"))
        last = min(similar, first + max(1, limit // width))
        yield order[first:last]
        first = last


def _settle(pairs: _Pairs, claimed: list[Tensor], claimants: list[Tensor]) -> Assignment:
    """Leave each anchor point to one object, and scale the alignment of each object's anchor points to its best IoU."""
    truth, num_anchors = pairs.ground_truth, pairs.cls_logits.shape[1]
    nothing = truth.labels.new_zeros(0)
    positions, objects = resolve_claims(
        torch.cat([nothing, *claimed]),
        torch.cat([nothing, *claimants]),
        truth.boxes,
        truth,
        num_anchors,
        pairs.predicted,
    )
    alignment, iou = pairs.alignment_and_iou(positions, objects)
    largest = truth.boxes.new_zeros(2, len(truth.boxes))
    largest[0].scatter_reduce_(0, objects, alignment, "amax")
    largest[1].scatter_reduce_(0, objects, iou, "amax")
    largest_alignment, largest_iou = largest.index_select(1, objects)
    scores = alignment / (largest_alignment + 1e-9) * largest_iou
    return Assignment(positions // num_anchors, positions % num_anchors, objects, scores)
