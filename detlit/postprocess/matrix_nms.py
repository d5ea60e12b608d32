"""Matrix non-maximum suppression: overlaps lower scores, all at once."""

from typing import Literal

from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.postprocess.candidates import CandidateCallback

__all__ = ["MatrixNMS"]


class MatrixNMS(CandidateCallback):
    """An ``nn.Module``, not a Lightning callback: matrix NMS per image, section 3.3 of https://arxiv.org/abs/2003.10152.

    Overlap with better boxes of the same class lowers a score instead of removing the box; less so where the better box
    is itself suspected of repeating another. What then is not above ``score_threshold`` is dropped. There is no loop
    over boxes, so the cost depends on nothing but ``nms_top_k``, whose square it grows with.

    Args:
        score_threshold: candidates and detections need a larger score, in float32.
        kernel: how an IoU lowers a score: ``"gaussian"``, ``exp(-sigma * iou ** 2)``, or ``"linear"``, ``1 - iou``.
        sigma: strength of the gaussian kernel; 2.0 in the paper.
        nms_top_k: candidates per image.
        max_predictions: detections per image.
        multi_label_per_box: an anchor point may give a detection of each class; otherwise only of its best.
        class_agnostic_nms: boxes of different classes lower each other's scores.
        clip: cut the boxes off at the border of the network input, after the suppression.

    Raises:
        ConfigurationError: a threshold outside [0, 1], a count below 1, an unknown kernel, or a sigma that is not
            positive.
    """

    def __init__(
        self,
        score_threshold: float = 0.01,
        kernel: Literal["gaussian", "linear"] = "gaussian",
        sigma: float = 3.0,
        nms_top_k: int = 500,
        max_predictions: int = 300,
        multi_label_per_box: bool = True,
        class_agnostic_nms: bool = False,
        clip: bool = False,
    ) -> None:
        super().__init__(score_threshold, nms_top_k, max_predictions, multi_label_per_box, class_agnostic_nms, clip)
        if kernel not in ("gaussian", "linear"):
            raise ConfigurationError(f"kernel={kernel!r} is unknown: choose gaussian or linear.")
        if not sigma > 0:
            raise ConfigurationError(f"sigma={sigma} would not lower the score of an overlap: choose more than 0.")
        self.kernel = kernel
        self.sigma = sigma

    def choose(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Return the candidates whose score stays above the threshold, best first, with those scores."""
        if not len(boxes):
            return groups, scores
        scores, order = (scores * self._decay(boxes, groups)).sort(descending=True, stable=True)
        keep = scores > self.score_threshold
        return order[keep], scores[keep]

    def _decay(self, boxes: Tensor, groups: Tensor) -> Tensor:
        """Return the factor ``(K,)`` in [0, 1] of each score, eq. 5 of the paper."""
        from torchvision.ops import box_iou  # here, because importing it takes as long as importing torch

        competing = (groups[:, None] == groups).triu_(1)  # (better, box)
        iou = box_iou(boxes, boxes).nan_to_num_(0).mul_(competing)  # two boxes without area: 0 / 0
        suspicion = iou.amax(0)[:, None]  # of the better box: its largest overlap with one better still
        if self.kernel == "gaussian":
            exponent: Tensor = iou.square_().sub_(suspicion.square()).amax(0)
            return (-self.sigma * exponent).exp()
        # A suspicion of 1 says nothing of others, 1 / 0, except of a further copy, 0 / 0, which goes.
        linear: Tensor = ((1 - iou) / (1 - suspicion).clamp(min=1e-6)).amin(0)
        return linear
