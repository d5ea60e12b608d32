"""The PP-YOLOE loss term by term in plain Python, given the assignment."""

import math
from collections.abc import Sequence

from tests.reference.boxes import Box, decode, giou, softmax


def _bce(logit: float, target: float) -> float:
    return max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))


def varifocal(logit: float, score: float, is_own_class: bool) -> float:
    probability = 1 / (1 + math.exp(-logit))
    weight = score if is_own_class else 0.75 * probability**2
    return weight * _bce(logit, score)


def focal(logit: float, score: float, alpha: float | None) -> float:
    probability = 1 / (1 + math.exp(-logit))
    weight = abs(probability - score) ** 2
    if alpha is not None:
        weight *= alpha * score + (1 - alpha) * (1 - score)
    return weight * _bce(logit, score)


def distribution_focal(side_logits: Sequence[Sequence[float]], point: Sequence[float], box: Box) -> float:
    """Return the mean over the four sides; point and box are in stride units."""
    reg_max = len(side_logits[0]) - 1
    distances = (point[0] - box[0], point[1] - box[1], box[2] - point[0], box[3] - point[1])
    total = 0.0
    for logits, distance in zip(side_logits, distances, strict=True):
        clipped = min(max(distance, 0.0), reg_max - 0.01)
        lower = int(clipped)
        probabilities = softmax(logits)
        total -= (lower + 1 - clipped) * math.log(probabilities[lower])
        total -= (clipped - lower) * math.log(probabilities[lower + 1])
    return total / 4


def box_terms(
    side_logits: Sequence[Sequence[float]], point: Sequence[float], stride: float, box: Box
) -> tuple[float, float]:
    """Return ``1 - GIoU`` and the distribution focal loss of one positive; point and box are in pixels."""
    point, box = [value / stride for value in point], [value / stride for value in box]
    return 1 - giou(decode(side_logits, point, 1.0), box), distribution_focal(side_logits, point, box)
