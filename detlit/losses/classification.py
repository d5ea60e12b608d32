"""The classification term: background nearly everywhere, so computed as that, and put right at the few positives."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detlit.losses.base import refuse_second_order
from detlit.ops.boxes import full_precision

__all__ = ["classification_sum"]


def classification_sum(
    logits: Tensor,
    background_weight: float,
    elementwise_loss: Callable[[Tensor, Tensor], Tensor],
    positive: Tensor,
    scores: Tensor,
) -> Tensor:
    """Return the summed loss of all class scores, ``background_weight * p**2 * softplus(logit)`` but at the positives.

    Computed in at least float32. Nothing as large as the logits is kept for the backward pass or made in it, but for
    the gradient. It can be differentiated once.

    Args:
        logits: ``(B, A, C)`` of any precision, ``p`` being their sigmoid.
        background_weight: of the loss of background.
        elementwise_loss: ``(P,)`` loss of ``(P,)`` logits and their targets.
        positive: ``(P,)`` distinct flat indices into ``logits``.
        scores: ``(P,)`` targets of these.
    """
    loss: Tensor = _ClassificationSum.apply(logits, background_weight, elementwise_loss, positive, scores)
    return loss


class _ClassificationSum(torch.autograd.Function):
    """:func:`classification_sum`, which computes in the backward pass again what it did not keep."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        weight: float,
        elementwise_loss: Callable[[Tensor, Tensor], Tensor],
        positive: Tensor,
        scores: Tensor,
    ) -> Tensor:
        """Return the loss of background over all logits, with that of the positives in place of theirs."""
        ctx.save_for_backward(logits, positive, scores)
        ctx.weight, ctx.elementwise_loss = weight, elementwise_loss
        own = _gather(logits, positive)
        sums = [_background(chunk) for chunk in map(full_precision, _chunks(logits))]
        return (torch.stack(sums).sum() - _background(own)) * weight + elementwise_loss(own, scores).sum()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Write ``weight * p**2 * (2 * (1 - p) * softplus + p)`` chunk by chunk, then the slopes of the positives."""
        refuse_second_order()
        logits, positive, scores = ctx.saved_tensors
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        scale = grad_output * ctx.weight
        for chunk, into in zip(map(full_precision, _chunks(logits)), _chunks(gradient), strict=True):
            p = chunk.sigmoid()
            inner = torch.addcmul(p, 1 - p, F.softplus(chunk), value=2)
            torch.mul(inner.mul_(p.square_()), scale, out=into)  # in the precision of the logits
        with torch.enable_grad():
            own = _gather(logits, positive).requires_grad_()
            (slope,) = torch.autograd.grad(ctx.elementwise_loss(own, scores).sum(), own, grad_output)
        gradient.view(-1).index_copy_(0, positive, slope.to(gradient.dtype))
        return gradient, None, None, None, None


def _background(logits: Tensor) -> Tensor:
    """Return the sum of ``p**2 * softplus(logit)`` over ``logits (n,)``."""
    return torch.dot(logits.sigmoid().square_(), F.softplus(logits))


def _gather(logits: Tensor, index: Tensor) -> Tensor:
    return full_precision(logits.detach().reshape(-1).index_select(0, index))


def _chunks(values: Tensor) -> tuple[Tensor, ...]:
    """Return flat views that a CPU's cache holds a few of; larger on a GPU, where each starts kernels of its own."""
    return torch.split(values.reshape(-1), 1 << 16 if values.device.type == "cpu" else 1 << 22)
