"""The box terms: GIoU and distribution focal loss of the positives, from one softmax."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from detlit.losses.base import refuse_second_order
from detlit.losses.functional import distribution_focal_loss
from detlit.ops.boxes import aligned_giou, boxes_to_distances, distances_to_boxes, full_precision, side_bins

__all__ = ["Positives", "box_sums"]


class Positives(NamedTuple):
    """Anchor points that learn an object; everything in stride units.

    Attributes:
        rows: ``(P,)`` distinct rows of the ``(B * A, ...)`` predictions.
        points: ``(P, 2)`` xy of the anchor points.
        boxes: ``(P, 4)`` xyxy boxes of their objects.
        scores: ``(P,)`` weights.
    """

    rows: Tensor
    points: Tensor
    boxes: Tensor
    scores: Tensor

    def chunks(self) -> list["Positives"]:
        """Return parts of which a CPU's cache holds the predictions; larger ones on a GPU."""
        size = 1 << 12 if self.rows.device.type == "cpu" else 1 << 16
        return [Positives(*part) for part in zip(*(torch.split(column, size) for column in self), strict=True)]


def box_sums(reg_logits: Tensor, positives: Positives) -> Tensor:
    """Return ``(2,)`` the GIoU and the distribution focal losses of the positives, summed with their scores as weights.

    Computed in at least float32, a part of the positives at a time, in the backward pass once more instead of keeping
    what that needs. It can be differentiated once.

    Args:
        reg_logits: ``(B, A, 4 * (reg_max + 1))`` distance bins before the softmax, of any precision.
        positives: of which there may be none.
    """
    sums: Tensor = _BoxSums.apply(reg_logits, *positives)
    return sums


def _sums(logits: Tensor, positives: Positives) -> Tensor:
    """Return ``(2,)`` the sums of positives with ``logits (P, 4 * (reg_max + 1))``, differentiably."""
    # (4, bins, P): a softmax is several times faster over a dimension that is not the last.
    log_probabilities = side_bins(logits).permute(1, 2, 0).contiguous().log_softmax(1)
    bins = torch.arange(log_probabilities.shape[1], device=logits.device, dtype=logits.dtype)
    predicted = distances_to_boxes((log_probabilities.exp() * bins[:, None]).sum(1).T, positives.points)
    iou = 1 - aligned_giou(predicted, positives.boxes)

    targets = boxes_to_distances(positives.boxes, positives.points).clamp(0, len(bins) - 1 - 0.01)
    dfl = distribution_focal_loss(log_probabilities.transpose(1, 2), targets.T).mean(0)
    return (torch.stack((iou, dfl)) * positives.scores).sum(1)


class _BoxSums(torch.autograd.Function):
    """:func:`_sums` of rows of a large tensor, whose gradient is 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, reg_logits: Tensor, *positives: Tensor) -> Tensor:
        """Return ``(2,)`` sums."""
        ctx.save_for_backward(reg_logits, *positives)
        flat = reg_logits.flatten(0, 1)
        sums = [_sums(_gather(flat, part), part) for part in Positives(*positives).chunks()]
        return torch.stack(sums).sum(0)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate the sums of each part, and place the rows."""
        refuse_second_order()
        reg_logits, *columns = ctx.saved_tensors
        flat = reg_logits.flatten(0, 1)
        gradient = torch.zeros_like(flat, memory_format=torch.contiguous_format)
        for part in Positives(*columns).chunks():
            with torch.enable_grad():
                logits = _gather(flat, part).requires_grad_()
                (slope,) = torch.autograd.grad(_sums(logits, part), logits, grad_output)
            gradient.index_copy_(0, part.rows, slope.to(gradient.dtype))
        return gradient.view_as(reg_logits), *[None] * len(columns)


def _gather(flat: Tensor, positives: Positives) -> Tensor:
    return full_precision(flat.detach().index_select(0, positives.rows))
