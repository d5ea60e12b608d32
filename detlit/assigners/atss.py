"""Adaptive training sample selection: assignment by geometry alone, for the first epochs of training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detlit.assigners.base import (
    Assigner,
    ImageObjects,
    ImagePredictions,
    inside_boxes,
    resolve_conflicts,
    top_k_mask,
)
from detlit.errors import ConfigurationError
from detlit.ops.boxes import pairwise_iou
from detlit.structures import Level

__all__ = ["ATSSAssigner"]

_ANCHOR_SCALE = 5.0
"""Side of an anchor square in strides; 5 in PP-YOLOE, 8 in the paper."""


class ATSSAssigner(Assigner):
    """Adaptive training sample selection, https://arxiv.org/abs/1912.02424, algorithm 1.

    Candidates are the ``topk`` anchor points of each level nearest to an object's centre, of equal ones those with the
    lowest index. A candidate is taken if it lies inside the box and the square of 5 strides around it overlaps the box
    by more than mean plus standard deviation over the object's candidates. Targets are the IoU of the predicted box.

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

    def match(self, predictions: ImagePredictions, objects: ImageObjects) -> tuple[Tensor, Tensor]:
        """Match by distance and overlap with the anchor squares; see :meth:`Assigner.match`."""
        points, half_sides = predictions.anchor_points, predictions.strides * (_ANCHOR_SCALE / 2)
        iou = pairwise_iou(objects.boxes, torch.cat((points - half_sides, points + half_sides), dim=1), eps=1e-10)
        candidates = self._nearest(points, objects.boxes, predictions.levels)

        eligible = inside_boxes(points, objects.boxes) & ~objects.iscrowd[:, None]
        claims = candidates & eligible & (iou > _mean_plus_std(iou, candidates))
        matched = resolve_conflicts(claims, iou, objects.iscrowd)
        return matched, pairwise_iou(objects.boxes, predictions.boxes)

    def _nearest(self, points: Tensor, boxes: Tensor, levels: Sequence[Level]) -> Tensor:
        """Return ``(N, A)`` bool: the anchor points of each level nearest to the centre of each box."""
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        distances = (centers[:, None] - points).square().sum(-1).sqrt()
        per_level = torch.split(distances, [level.height * level.width for level in levels], dim=1)
        return torch.cat([top_k_mask(-level, self.topk) for level in per_level], dim=1)


def _mean_plus_std(values: Tensor, mask: Tensor) -> Tensor:
    """Return ``(N, 1)`` mean plus unbiased standard deviation of the masked ``values`` of each row."""
    count = mask.sum(1, keepdim=True)
    mean = (values * mask).sum(1, keepdim=True) / count
    variance = ((values - mean).square() * mask).sum(1, keepdim=True) / (count - 1)
    return mean + variance.sqrt()
