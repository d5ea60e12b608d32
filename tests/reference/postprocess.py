"""Greedy and matrix non-maximum suppression of one image, in plain Python."""

import math
from collections.abc import Sequence

from tests.reference.boxes import Box, iou

Row = tuple[float, int, int]
"""score, anchor point, label"""


def select(
    boxes: Sequence[Box],
    scores: Sequence[Sequence[float]],
    score_threshold: float,
    nms_threshold: float,
    nms_top_k: int,
    max_predictions: int,
    multi_label_per_box: bool,
    class_agnostic_nms: bool,
) -> list[Row]:
    rows = [(score, a, c) for a, row in enumerate(scores) for c, score in enumerate(row)]
    if not multi_label_per_box:
        rows = [(max(row), a, list(row).index(max(row))) for a, row in enumerate(scores)]
    rows = sorted((row for row in rows if row[0] > score_threshold), key=lambda row: (-row[0], *row[1:]))
    kept: list[Row] = []
    for row in rows[:nms_top_k]:
        rivals = (other for other in kept if class_agnostic_nms or other[2] == row[2])
        if all(iou(boxes[row[1]], boxes[other[1]]) <= nms_threshold for other in rivals):
            kept.append(row)
    return kept[:max_predictions]


def matrix_decay(
    boxes: Sequence[Box], groups: Sequence[int], kernel: str = "gaussian", sigma: float = 3.0
) -> list[float]:
    """Return the factor of each score by which matrix NMS lowers it; boxes are sorted, best first."""

    def overlap(i: int, j: int) -> float:
        return iou(boxes[i], boxes[j]) if groups[i] == groups[j] else 0.0

    def weight(value: float) -> float:
        return math.exp(-sigma * value**2) if kernel == "gaussian" else 1 - value

    largest = [max((overlap(i, j) for i in range(j)), default=0.0) for j in range(len(boxes))]
    ratios = [[weight(overlap(i, j)) / max(weight(largest[i]), 1e-6) for i in range(j)] for j in range(len(boxes))]
    return [min(row, default=1.0) for row in ratios]
