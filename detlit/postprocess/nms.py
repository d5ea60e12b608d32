"""From raw predictions to detections: rank, decode the survivors, suppress what overlaps."""

import torch
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.ops.boxes import decode_boxes, full_precision
from detlit.postprocess.base import PostPredictionCallback
from detlit.structures import Detection, RawPredictions

__all__ = ["NMSPostPredictionCallback"]


class NMSPostPredictionCallback(PostPredictionCallback):
    """An ``nn.Module``, not a Lightning callback: non-maximum suppression per image.

    A candidate is an anchor point with a class, kept if its score is **greater** than ``score_threshold`` (0.0 keeps
    all but zero scores). Equal scores rank by anchor point, then by label, so results do not depend on the device.

    Args:
        score_threshold: candidates need a larger score.
        nms_threshold: of two boxes with a larger IoU the better one stays.
        nms_top_k: candidates per image that enter the suppression.
        max_predictions: detections per image.
        multi_label_per_box: an anchor point may give a detection of each class; otherwise only of its best.
        class_agnostic_nms: boxes of different classes suppress each other.

    Raises:
        ConfigurationError: a threshold outside [0, 1], or a count below 1.
    """

    def __init__(
        self,
        score_threshold: float = 0.01,
        nms_threshold: float = 0.7,
        nms_top_k: int = 1000,
        max_predictions: int = 300,
        multi_label_per_box: bool = True,
        class_agnostic_nms: bool = False,
    ) -> None:
        super().__init__()
        for name, threshold in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
            if not 0 <= threshold <= 1:
                raise ConfigurationError(f"{name}={threshold} is no threshold: choose a number between 0 and 1.")
        for name, count in (("nms_top_k", nms_top_k), ("max_predictions", max_predictions)):
            if count < 1:
                raise ConfigurationError(f"{name}={count} leaves no detections: choose at least 1.")
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.nms_top_k = nms_top_k
        self.max_predictions = max_predictions
        self.multi_label_per_box = multi_label_per_box
        self.class_agnostic_nms = class_agnostic_nms

    @torch.no_grad()
    def forward(self, predictions: RawPredictions) -> list[Detection]:
        """Return the detections of each image, best first, in pixels of the network input."""
        detections = []
        for cls_logits, reg_logits in zip(predictions.cls_logits, predictions.reg_logits, strict=True):
            # The sigmoid is monotone: rank logits, and compute scores and boxes of the best alone.
            logits, anchors, labels = self._rank(cls_logits)
            boxes = decode_boxes(reg_logits[anchors], predictions.anchor_points[anchors], predictions.strides[anchors])
            detections.append(self._select(boxes, full_precision(logits).sigmoid(), labels))
        return detections

    @torch.no_grad()
    def suppress(self, boxes: Tensor, scores: Tensor) -> list[Detection]:
        """Return the detections of predictions that are decoded already, as exported models give them.

        Args:
            boxes: ``(B, A, 4)`` xyxy pixels.
            scores: ``(B, A, C)`` in [0, 1].
        """
        detections = []
        for image_boxes, image_scores in zip(boxes, scores, strict=True):
            ranked_scores, anchors, labels = self._rank(image_scores)
            detections.append(self._select(image_boxes[anchors], ranked_scores, labels))
        return detections

    def _rank(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.multi_label_per_box:
            return rank_pairs(scores, self.nms_top_k)
        best, labels = scores.max(-1)
        order = best.argsort(descending=True, stable=True)[: self.nms_top_k]
        return best[order], order, labels[order]

    def _select(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detection:
        """Apply threshold, suppression and count to ranked candidates ``(K, 4)``, ``(K,)``, ``(K,)``."""
        boxes, scores = boxes.float(), scores.float()
        keep = torch.nonzero(scores > self.score_threshold)[:, 0]
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        keep = _suppress_overlaps(
            boxes, torch.zeros_like(labels) if self.class_agnostic_nms else labels, self.nms_threshold
        )
        keep = keep[: self.max_predictions]
        return Detection(boxes=boxes[keep], scores=scores[keep], labels=labels[keep])


def rank_pairs(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return score, anchor point and label ``(K,)`` of the ``k`` best pairs in ``scores (A, C)``, best first.

    Of equal scores the lower anchor point, then the lower label comes first. Each of the ``k`` best pairs belongs to
    one of the ``k`` anchor points with the best maxima, and is at least as good as the least of those maxima: only
    what passes both is sorted, which is little even when nearly every score passes the threshold.
    """
    best = scores.amax(-1)
    anchors = best.argsort(descending=True, stable=True)[:k].sort().values
    rows = scores[anchors]
    floor = best[anchors].amin() if len(anchors) == k else rows.amin()
    row, labels = (rows >= floor).nonzero(as_tuple=True)
    values, order = rows[row, labels].sort(descending=True, stable=True)
    order = order[:k]
    return values[:k], anchors[row[order]], labels[order]


def _suppress_overlaps(boxes: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Return the ascending indices of ranked ``boxes (K, 4)`` that no better box of their group overlaps too much."""
    from torchvision.ops import batched_nms  # here, because importing it takes as long as importing torch

    ranks = torch.arange(len(boxes), 0, -1, device=boxes.device, dtype=boxes.dtype)
    kept: Tensor = batched_nms(boxes, ranks, groups, threshold)
    return kept.sort().values
