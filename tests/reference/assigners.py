"""The assigners object by object and anchor point by anchor point, in plain Python; one image at a time.

Each returns, per anchor point, the index of its object (-1 for background) and its score.
"""

import statistics
from collections.abc import Sequence

from tests.reference.boxes import Box, contains, iou

Matches = tuple[list[int], list[float]]


def _resolve(claims: list[set[int]], overlaps: Sequence[Sequence[float]], num_anchors: int) -> list[int]:
    """Return the object of each anchor point; of several claimants, the object of the image that overlaps most."""
    owners = []
    for anchor in range(num_anchors):
        claimants = [i for i, claim in enumerate(claims) if anchor in claim]
        if len(claimants) > 1:
            column = [row[anchor] for row in overlaps]
            claimants = [column.index(max(column))]
        owners.append(claimants[0] if claimants else -1)
    return owners


def task_aligned(
    scores: Sequence[Sequence[float]],
    predicted: Sequence[Box],
    points: Sequence[Sequence[float]],
    boxes: Sequence[Box],
    labels: Sequence[int],
    topk: int = 13,
) -> Matches:
    overlaps = [[iou(box, guess) for guess in predicted] for box in boxes]
    alignment = [
        [scores[a][label] * u**6 for a, u in enumerate(row)] for label, row in zip(labels, overlaps, strict=True)
    ]
    claims = []
    for box, row in zip(boxes, alignment, strict=True):
        inside = [a for a, point in enumerate(points) if contains(box, point)]
        claims.append(set(sorted(inside, key=lambda a: (-row[a], a))[:topk]))
    owners = _resolve(claims, overlaps, len(points))
    targets = [0.0] * len(points)
    for i, row in enumerate(alignment):
        own = [a for a, owner in enumerate(owners) if owner == i]
        for a in own:
            best = max(row[b] for b in own)
            targets[a] = row[a] / (best + 1e-9) * max(overlaps[i][b] for b in own)
    return owners, targets


def atss(
    predicted: Sequence[Box],
    points: Sequence[Sequence[float]],
    strides: Sequence[float],
    boxes: Sequence[Box],
    topk: int = 9,
) -> Matches:
    squares = [(x - 2.5 * s, y - 2.5 * s, x + 2.5 * s, y + 2.5 * s) for (x, y), s in zip(points, strides, strict=True)]
    overlaps = [[iou(box, square) for square in squares] for box in boxes]
    claims = []
    for box, row in zip(boxes, overlaps, strict=True):
        center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        candidates = []
        for stride in sorted(set(strides)):
            level = [a for a, s in enumerate(strides) if s == stride]
            distance = {a: (points[a][0] - center[0]) ** 2 + (points[a][1] - center[1]) ** 2 for a in level}
            candidates += sorted(level, key=lambda a: (distance[a], a))[:topk]
        ious = [row[a] for a in candidates]
        threshold = statistics.mean(ious) + statistics.stdev(ious)
        claims.append({a for a in candidates if row[a] > threshold and contains(box, points[a])})
    owners = _resolve(claims, overlaps, len(points))
    return owners, [iou(boxes[i], predicted[a]) if i >= 0 else 0.0 for a, i in enumerate(owners)]
