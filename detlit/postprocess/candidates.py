"""What post-prediction callbacks share: rank candidates, decode the survivors, let a subclass choose among them."""

from abc import abstractmethod

import torch
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.ops.boxes import decode_boxes, full_precision
from detlit.postprocess.base import PostPredictionCallback
from detlit.postprocess.ranking import rank_anchors, rank_pairs
from detlit.structures import Detection, RawPredictions

__all__ = ["CandidateCallback"]


class CandidateCallback(PostPredictionCallback):
    """An ``nn.Module``, not a Lightning callback: base of what chooses among the best candidates of each image.

    A candidate is an anchor point with a class. There is one rule for the threshold: the score, rounded to float32,
    must be **greater** than ``score_threshold``; 0.0 keeps all but zero scores. Equal scores rank by anchor point, then
    by label, so results do not depend on the device. A score or box that is not finite gives no detection.

    Raises:
        ConfigurationError: a threshold outside [0, 1], or a count below 1.
    """

    def __init__(
        self,
        score_threshold: float,
        nms_top_k: int,
        max_predictions: int,
        multi_label_per_box: bool,
        class_agnostic_nms: bool,
        clip: bool,
    ) -> None:
        super().__init__()
        check_threshold("score_threshold", score_threshold)
        for name, count in (("nms_top_k", nms_top_k), ("max_predictions", max_predictions)):
            if count < 1:
                raise ConfigurationError(f"{name}={count} leaves no detections: choose at least 1.")
        self.score_threshold = score_threshold
        self.nms_top_k = nms_top_k
        self.max_predictions = max_predictions
        self.multi_label_per_box = multi_label_per_box
        self.class_agnostic_nms = class_agnostic_nms
        self.clip = clip

    @abstractmethod
    def choose(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Return which candidates of one image are detections, best first, and their scores.

        Args:
            boxes: ``(K, 4)`` float32 xyxy pixels, best first; ``K`` may be 0.
            scores: ``(K,)`` float32, each above the threshold.
            groups: ``(K,)`` int64; candidates of different groups do not compete.

        Returns:
            Indices ``(K',)`` and scores ``(K',)``.
        """

    @torch.no_grad()
    def forward(self, predictions: RawPredictions) -> list[Detection]:
        """Return the detections of each image, best first, in pixels of the network input."""
        # A head's last row and column may reach beyond an image that is no multiple of a stride: the least is right.
        height = min(level.height * level.stride for level in predictions.levels)
        width = min(level.width * level.stride for level in predictions.levels)
        detections = []
        for cls_logits, reg_logits in zip(predictions.cls_logits, predictions.reg_logits, strict=True):
            # The sigmoid is monotone: rank logits, and compute scores and boxes of the best alone.
            logits, anchors, labels = self._rank(cls_logits)
            scores = full_precision(logits).sigmoid().float()
            passed = self._passed(scores)
            scores, anchors, labels = scores[passed], anchors[passed], labels[passed]
            reg_logits, points, strides = (
                values.index_select(0, anchors)
                for values in (reg_logits, predictions.anchor_points, predictions.strides)
            )
            boxes = decode_boxes(reg_logits, points, strides)
            detections.append(self._detection(boxes, scores, labels, (height, width)))
        return detections

    @torch.no_grad()
    def suppress(self, boxes: Tensor, scores: Tensor, image_size: tuple[int, int] | None = None) -> list[Detection]:
        """Return the detections of predictions that are decoded already, as exported models give them.

        Args:
            boxes: ``(B, A, 4)`` xyxy pixels.
            scores: ``(B, A, C)`` in [0, 1].
            image_size: (height, width) of the network input in pixels, which ``clip`` needs.

        Raises:
            ConfigurationError: boxes shall be clipped, to an image of unknown size.
        """
        if self.clip and image_size is None:
            raise ConfigurationError("clip=True needs the size of the image: give image_size=(height, width).")
        detections = []
        for image_boxes, image_scores in zip(boxes, scores, strict=True):
            ranked_scores, anchors, labels = self._rank(image_scores)
            ranked_scores = ranked_scores.float()
            passed = self._passed(ranked_scores)
            candidates = image_boxes.index_select(0, anchors[passed])
            detections.append(self._detection(candidates, ranked_scores[passed], labels[passed], image_size))
        return detections

    def _rank(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (rank_pairs if self.multi_label_per_box else rank_anchors)(scores, self.nms_top_k)

    def _passed(self, scores: Tensor) -> Tensor:
        """Return the indices of the float32 ``scores`` above the threshold."""
        return (scores > self.score_threshold).nonzero()[:, 0]

    def _detection(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, image_size: tuple[int, int] | None
    ) -> Detection:
        """Choose among ranked candidates ``(K, 4)``, ``(K,)``, ``(K,)``, and clip after that: it changes no choice."""
        finite = boxes.isfinite().all(-1).nonzero()[:, 0]
        boxes, scores, labels = boxes[finite].float(), scores[finite], labels[finite]
        groups = torch.zeros_like(labels) if self.class_agnostic_nms else labels
        chosen, scores = self.choose(boxes, scores, groups)
        chosen, scores = chosen[: self.max_predictions], scores[: self.max_predictions]
        boxes = boxes[chosen]
        if self.clip and image_size is not None:
            height, width = image_size
            boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
        return Detection(boxes=boxes, scores=scores, labels=labels[chosen])


def check_threshold(name: str, threshold: float) -> None:
    """Refuse a number outside [0, 1]."""
    if not 0 <= threshold <= 1:
        raise ConfigurationError(f"{name}={threshold} is no threshold: choose a number between 0 and 1.")
