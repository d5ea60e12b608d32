"""Knowledge distillation from the float detector to its quantized copy."""

import torch
from torch import Tensor
from torch.nn import functional as F

from detlit.ops.boxes import full_precision, side_bins
from detlit.structures import RawPredictions

__all__ = ["distillation_loss"]


def distillation_loss(student: RawPredictions, teacher: RawPredictions) -> Tensor:
    """Return how far a detector's predictions are from a teacher's: 0 where they agree, differentiable by the student.

    The Kullback-Leibler divergence of every class score, and of the distributions of the box sides where the teacher
    sees something (its best score is their weight), over the sum of those weights; after
    https://arxiv.org/abs/2102.12252.

    Args:
        student: predictions with gradients.
        teacher: predictions on the same images.
    """
    wanted = full_precision(teacher.cls_logits)
    scores = wanted.sigmoid()
    # The cross entropy less that of the teacher with itself is the divergence of two Bernoulli distributions.
    entropy = F.binary_cross_entropy_with_logits(wanted, scores, reduction="sum")
    cross_entropy = F.binary_cross_entropy_with_logits(full_precision(student.cls_logits), scores, reduction="sum")
    weights = scores.amax(-1)
    divergence = F.kl_div(
        side_bins(full_precision(student.reg_logits)).log_softmax(-1),
        side_bins(full_precision(teacher.reg_logits)).log_softmax(-1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    sides = torch.sum(divergence.mean(-1) * weights)
    return (cross_entropy - entropy + sides) / weights.sum().clamp(min=1.0)
