"""Elementwise losses of dense detectors; nothing here is reduced over anchor points or classes."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["distribution_focal_loss", "focal_loss", "varifocal_loss"]


def varifocal_loss(logits: Tensor, scores: Tensor) -> Tensor:
    """Varifocal loss where the class is that of an object, eq. 2 of https://arxiv.org/abs/2008.13367.

    Args:
        logits: class scores before the sigmoid.
        scores: their targets in [0, 1].

    Returns:
        Losses in the shape of ``logits``.
    """
    return scores * F.binary_cross_entropy_with_logits(logits, scores, reduction="none")


def focal_loss(logits: Tensor, scores: Tensor, alpha: float | None = None, gamma: float = 2.0) -> Tensor:
    """Focal loss for continuous targets, eq. 2 of https://arxiv.org/abs/2006.04388, with gradients through the weight.

    Args:
        logits: class scores before the sigmoid.
        scores: their targets in [0, 1].
        alpha: weight of objects, ``1 - alpha`` being that of background (https://arxiv.org/abs/1708.02002); ``None``
            weighs both alike.
        gamma: exponent of the distance between prediction and target.

    Returns:
        Losses in the shape of ``logits``.
    """
    distance = (logits.sigmoid() - scores).abs()
    loss = distance.pow(gamma) * F.binary_cross_entropy_with_logits(logits, scores, reduction="none")
    return loss if alpha is None else loss * (alpha * scores + (1 - alpha) * (1 - scores))


def distribution_focal_loss(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """Distribution focal loss of box sides, eq. 6 of https://arxiv.org/abs/2006.04388.

    Args:
        log_probabilities: ``(..., reg_max + 1)`` of the distance bins.
        target: ``(...)`` distances in stride units, within ``[0, reg_max)``.

    Returns:
        ``(...)`` losses.
    """
    lower = target.long()
    upper_weight = target - lower
    lower_loss = -log_probabilities.gather(-1, lower[..., None])[..., 0]
    upper_loss = -log_probabilities.gather(-1, lower[..., None] + 1)[..., 0]
    return lower_loss * (1 - upper_weight) + upper_loss * upper_weight
