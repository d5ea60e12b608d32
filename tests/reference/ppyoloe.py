"""The whole PP-YOLOE loss, image by image, anchor point by anchor point and class by class."""

import torch

from detlit.assigners.matching import decode_at
from detlit.structures import RawPredictions, Target
from tests.reference import assigners, loss


def assign(
    predictions: RawPredictions, targets: list[Target], static: bool, topk: int | None = None
) -> tuple[list[list[int]], list[list[float]]]:
    """Return the object, numbered through the batch, and the score of each anchor point of each image.

    Boxes are decoded, and scores taken from logits, by the functions of the fast assigners, because the last bit may
    decide which object overlaps an anchor point most.
    """
    scores = predictions.cls_logits.sigmoid().tolist()
    num_images, num_anchors = predictions.cls_logits.shape[:2]
    decoded = decode_at(predictions, torch.arange(num_images * num_anchors)).T.unflatten(0, (num_images, -1)).tolist()
    points, strides = predictions.anchor_points.tolist(), predictions.strides[:, 0].tolist()
    owners, qualities, first = [], [], 0
    for i, target in enumerate(targets):
        crowd = target.get("iscrowd", torch.zeros(len(target["labels"]), dtype=torch.bool))
        rows = (first + torch.nonzero(~crowd)[:, 0]).tolist()
        boxes, labels = target["boxes"][~crowd].tolist(), target["labels"][~crowd].tolist()
        if static:
            matches = assigners.atss(decoded[i], points, strides, boxes, topk or 9)
        else:
            matches = assigners.task_aligned(scores[i], decoded[i], points, boxes, labels, topk or 13)
        owners.append([-1 if owner < 0 else rows[owner] for owner in matches[0]])
        qualities.append(matches[1])
        first += len(crowd)
    return owners, qualities


def terms(predictions: RawPredictions, targets: list[Target], static: bool, varifocal: bool = True) -> list[float]:
    """Return the classification, GIoU and distribution focal terms with their default weights."""
    owners, qualities = assign(predictions, targets, static)
    boxes = [box for target in targets for box in target["boxes"].tolist()]
    labels = [label for target in targets for label in target["labels"].tolist()]
    points, strides = predictions.anchor_points.tolist(), predictions.strides[:, 0].tolist()
    cls = iou = dfl = 0.0
    for b, image in enumerate(predictions.cls_logits.tolist()):
        for a, row in enumerate(image):
            owner, score = owners[b][a], qualities[b][a]
            for c, logit in enumerate(row):
                own = owner >= 0 and labels[owner] == c
                if varifocal:
                    cls += loss.varifocal(logit, score if own else 0.0, own)
                else:
                    cls += loss.focal(logit, score if own else 0.0, 0.25 if static else None)
            if owner >= 0:
                sides = predictions.reg_logits[b, a].reshape(4, -1).tolist()
                giou, distribution = loss.box_terms(sides, points[a], strides[a], boxes[owner])
                iou += score * giou
                dfl += score * distribution
    normaliser = max(1.0, sum(map(sum, qualities)))
    return [1.0 * cls / normaliser, 2.5 * iou / normaliser, 0.5 * dfl / normaliser]
