"""Task-aligned assignment: the anchor points that classify and localise an object best learn it."""

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

__all__ = ["TaskAlignedAssigner"]


class TaskAlignedAssigner(Assigner):
    """Task-aligned assigner of TOOD, https://arxiv.org/abs/2108.07755.

    Each object takes the ``topk`` anchor points inside its box with the largest alignment ``t = s**alpha * u**beta``,
    ``s`` the predicted score of its class and ``u`` the IoU of the predicted box with it; of equal ones those with the
    lowest index. Targets are ``t`` scaled so that an object's largest is its largest ``u``.

    Args:
        topk: anchor points per object.
        alpha: exponent of the score.
        beta: exponent of the IoU.

    Raises:
        ConfigurationError: ``topk`` below 1.
    """

    def __init__(self, topk: int = 13, alpha: float = 1.0, beta: float = 6.0) -> None:
        if topk < 1:
            raise ConfigurationError(f"topk={topk} leaves no anchor points to assign: choose at least 1.")
        self.topk = topk
        self.alpha = alpha
        self.beta = beta

    def match(self, predictions: ImagePredictions, objects: ImageObjects) -> tuple[Tensor, Tensor]:
        """Match by alignment; see :meth:`Assigner.match`."""
        iou = pairwise_iou(objects.boxes, predictions.boxes)
        scores = predictions.cls_logits[:, objects.labels].sigmoid().T
        alignment = scores.pow(self.alpha) * iou.pow(self.beta)

        eligible = inside_boxes(predictions.anchor_points, objects.boxes) & ~objects.iscrowd[:, None]
        claims = top_k_mask(alignment.masked_fill(~eligible, -1), self.topk) & eligible
        matched = resolve_conflicts(claims, iou, objects.iscrowd)

        largest_alignment = (alignment * matched).amax(1, keepdim=True)
        largest_iou = (iou * matched).amax(1, keepdim=True)
        return matched, alignment / (largest_alignment + 1e-9) * largest_iou
