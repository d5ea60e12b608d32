"""The best of many scores, exactly, in an order that no device and no sorting algorithm changes.

Scores may be probabilities or logits, of any floating type: the sigmoid is monotone. Of equal scores the lower anchor
point, then the lower label comes first. What is not a number never ranks.
"""

import torch
from torch import Tensor

__all__ = ["best_of", "rank_anchors", "rank_pairs"]


def best_of(values: Tensor, k: int) -> Tensor:
    """Return the ascending indices of the ``k`` best of ``values (N,)``, of equal ones the first; all if fewer.

    ``topk`` alone leaves open which of several equal values it takes, and sorting all of them takes four times as long.
    """
    if len(values) <= k:
        return torch.arange(len(values), device=values.device)
    least = values.topk(k, sorted=False).values.amin()
    better, equal = values > least, values == least
    return (better | (equal & (equal.cumsum(0) <= k - better.sum()))).nonzero()[:, 0]


def rank_pairs(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return score, anchor point and label ``(K,)`` of the ``k`` best pairs in ``scores (A, C)``, best first.

    Each of the ``k`` best pairs belongs to one of the ``k`` anchor points with the best maxima, and is at least as good
    as the least of those maxima: only what passes both is looked at again, which is little even when nearly every score
    passes the threshold.
    """
    best = _best_per_anchor(scores)
    anchors = best_of(best, k)
    floor = best[anchors].amin() if len(anchors) == k else -torch.inf
    rows = scores.index_select(0, anchors).flatten()  # three times as fast as scores[anchors]
    pairs = (rows >= floor).nonzero()[:, 0]
    values = rows[pairs]
    chosen = best_of(values, k)
    values, order = values[chosen].sort(descending=True, stable=True)
    pairs = pairs[chosen[order]]
    num_classes = scores.shape[1]
    return values, anchors[pairs // num_classes], pairs % num_classes


def rank_anchors(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return score, anchor point and label ``(K,)`` of the ``k`` best anchor points in ``scores (A, C)``, best first.

    Each ranks by its best label.
    """
    best = _best_per_anchor(scores)
    anchors = best_of(best, k)
    values, order = best[anchors].sort(descending=True, stable=True)
    anchors = anchors[order]
    return values, anchors, scores.index_select(0, anchors).argmax(-1)


def _best_per_anchor(scores: Tensor) -> Tensor:
    best = scores.amax(-1)
    return best.masked_fill(best.isnan(), -torch.inf)
