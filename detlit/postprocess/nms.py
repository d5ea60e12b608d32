"""Greedy non-maximum suppression."""

import torch
from torch import Tensor

from detlit.postprocess.candidates import CandidateCallback, check_threshold

__all__ = ["NMSPostPredictionCallback"]


class NMSPostPredictionCallback(CandidateCallback):
    """An ``nn.Module``, not a Lightning callback: non-maximum suppression per image.

    A candidate is an anchor point with a class, kept if its score, in float32, is **greater** than ``score_threshold``
    (0.0 keeps all but zero scores). Equal scores rank by anchor point, then by label, so results do not depend on the
    device.

    Args:
        score_threshold: candidates need a larger score.
        nms_threshold: of two boxes with a larger IoU the better one stays.
        nms_top_k: candidates per image that enter the suppression.
        max_predictions: detections per image.
        multi_label_per_box: an anchor point may give a detection of each class; otherwise only of its best.
        class_agnostic_nms: boxes of different classes suppress each other.
        clip: cut the boxes off at the border of the network input, after the suppression.

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
        clip: bool = False,
    ) -> None:
        super().__init__(score_threshold, nms_top_k, max_predictions, multi_label_per_box, class_agnostic_nms, clip)
        check_threshold("nms_threshold", nms_threshold)
        self.nms_threshold = nms_threshold

    def choose(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Return the candidates that no better one of their group overlaps too much, with their scores."""
        keep = suppress_overlaps(boxes, groups, self.nms_threshold)
        return keep, scores[keep]


def suppress_overlaps(boxes: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Return the ascending indices of ranked ``boxes (K, 4)`` that no better box of their group overlaps too much.

    Groups are moved apart by more than all boxes span, in float64, where that is exact. torchvision's ``batched_nms``
    moves them by the largest coordinate, in float32: at class 79 that rounds a box by up to 1/512 pixel, and boxes that
    begin left of or above the image meet those of the class before.
    """
    from torchvision.ops import nms  # here, because importing it takes as long as importing torch

    if not len(boxes):
        return torch.arange(0, device=boxes.device)
    device = boxes.device
    if device.type == "mps":  # has no float64
        boxes, groups = boxes.cpu(), groups.cpu()
    boxes = boxes.double()
    span = (boxes.amax() - boxes.amin()).ceil() + 1
    ranks = torch.arange(len(boxes), 0, -1, device=boxes.device, dtype=boxes.dtype)
    kept: Tensor = nms(boxes + (groups * span)[:, None], ranks, threshold)
    return kept.to(device)
