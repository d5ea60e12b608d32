"""Overlap and decoding of single boxes, in plain Python."""

import math
from collections.abc import Sequence

Box = Sequence[float]


def area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def intersection(a: Box, b: Box) -> float:
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    union = area(a) + area(b) - intersection(a, b)
    return intersection(a, b) / (union + 1e-9)


def giou(a: Box, b: Box) -> float:
    union = area(a) + area(b) - intersection(a, b) + 1e-10
    enclosing = area((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))) + 1e-10
    return intersection(a, b) / union - (enclosing - union) / enclosing


def contains(box: Box, point: Sequence[float]) -> bool:
    return min(point[0] - box[0], point[1] - box[1], box[2] - point[0], box[3] - point[1]) > 1e-9


def softmax(logits: Sequence[float]) -> list[float]:
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return [value / sum(exponentials) for value in exponentials]


def decode(side_logits: Sequence[Sequence[float]], point: Sequence[float], stride: float) -> list[float]:
    left, top, right, bottom = (
        stride * sum(bin_ * p for bin_, p in enumerate(softmax(logits))) for logits in side_logits
    )
    return [point[0] - left, point[1] - top, point[0] + right, point[1] + bottom]
