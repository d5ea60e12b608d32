"""The loss of PP-YOLOE, which YOLO-NAS trains with too."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, distributed

from detlit.assigners import Assigner, Assignment, ATSSAssigner, TaskAlignedAssigner
from detlit.errors import AnnotationError, ConfigurationError
from detlit.losses.base import DetectionLoss
from detlit.losses.boxes import Positives, box_sums
from detlit.losses.classification import classification_sum
from detlit.losses.functional import focal_loss, varifocal_loss
from detlit.ops.targets import BatchObjects, collect_ground_truth
from detlit.structures import Batch, LossOutput, RawPredictions, Target

__all__ = ["PPYoloELoss"]

_PATIENCE = 50
"""Batches with objects after which it is no accident that none of them matched."""


class PPYoloELoss(DetectionLoss):
    """Classification, GIoU and distribution focal loss over assigned anchor points, https://arxiv.org/abs/2203.16250.

    Each term is a sum weighted by the assigned scores and divided by their sum ``S``, at least 1. Computed in float32
    whatever the precision of the run; float64 predictions stay float64.

    In distributed training ``S`` is that of all ranks, so that the gradient DDP averages is the gradient of the joint
    batch, and the values returned are those of the joint batch on every rank. It takes one ``all_reduce`` in each
    forward in training mode with gradients enabled, so every rank must take part in it.

    Args:
        num_classes: only checked against the predictions; ``None`` takes what they have.
        use_varifocal_loss: classify with the varifocal loss, otherwise with the focal loss.
        use_static_assigner: assign with ``static_assigner``; may be changed between steps.
        classification_loss_weight: weight of ``loss_cls``.
        iou_loss_weight: weight of ``loss_iou``.
        dfl_loss_weight: weight of ``loss_dfl``.
        assigner: :class:`~detlit.assigners.TaskAlignedAssigner` unless given.
        static_assigner: :class:`~detlit.assigners.ATSSAssigner` unless given.

    Raises:
        ConfigurationError: less than one class, or weights that are negative, not finite, or all 0.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        use_varifocal_loss: bool = True,
        use_static_assigner: bool = False,
        classification_loss_weight: float = 1.0,
        iou_loss_weight: float = 2.5,
        dfl_loss_weight: float = 0.5,
        assigner: Assigner | None = None,
        static_assigner: Assigner | None = None,
    ) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ConfigurationError(f"num_classes={num_classes} is no number of classes: leave it out.")
        weights = {
            "classification_loss_weight": classification_loss_weight,
            "iou_loss_weight": iou_loss_weight,
            "dfl_loss_weight": dfl_loss_weight,
        }
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise ConfigurationError(f"{name}={weight} is no weight of a loss: choose a finite number, 0 or more.")
        if not any(weights.values()):
            raise ConfigurationError(f"{', '.join(weights)} are all 0, which trains nothing: make one positive.")
        self.num_classes = num_classes
        self.use_varifocal_loss = use_varifocal_loss
        self.use_static_assigner = use_static_assigner
        self.classification_loss_weight = classification_loss_weight
        self.iou_loss_weight = iou_loss_weight
        self.dfl_loss_weight = dfl_loss_weight
        self.assigner = TaskAlignedAssigner() if assigner is None else assigner
        self.static_assigner = ATSSAssigner() if static_assigner is None else static_assigner
        self._steps_without_match: int | None = 0

    def forward(self, predictions: RawPredictions, batch: Batch | Sequence[Target]) -> LossOutput:
        """Return the loss with the terms ``loss_cls``, ``loss_iou`` and ``loss_dfl``.

        Raises:
            ConfigurationError: predictions with another number of classes or images than expected.
            AnnotationError: labels out of range, boxes that are not finite, or no object that an anchor point can
                learn in the first steps of training.
        """
        with torch.autocast(predictions.cls_logits.device.type, enabled=False):
            num_classes = predictions.cls_logits.shape[-1]
            if self.num_classes not in (None, num_classes):
                raise ConfigurationError(
                    f"the loss was built with num_classes={self.num_classes} and the detector predicts {num_classes}: "
                    "leave the loss's num_classes out."
                )
            ground_truth = collect_ground_truth(batch, num_classes, like=predictions.reg_logits)
            assigner = self.static_assigner if self.use_static_assigner else self.assigner
            assignment = assigner(predictions, ground_truth)
            if self.training:
                self._check_that_objects_match(predictions, ground_truth, assignment)
            return self._loss(predictions, ground_truth, assignment)

    def _loss(self, predictions: RawPredictions, ground_truth: BatchObjects, assignment: Assignment) -> LossOutput:
        """Return the loss for an assignment."""
        _, num_anchors, num_classes = predictions.cls_logits.shape
        image, anchor, rows, scores = assignment
        position, strides = image * num_anchors + anchor, predictions.strides.index_select(0, anchor).to(scores.dtype)
        positives = Positives(
            position,
            predictions.anchor_points.index_select(0, anchor) / strides,
            ground_truth.boxes.index_select(0, rows) / strides,
            scores,
        )
        own_class = position * num_classes + ground_truth.labels.index_select(0, rows)
        cls = classification_sum(predictions.cls_logits, *self._background_and_own_loss(), own_class, scores)
        iou, dfl = box_sums(predictions.reg_logits, positives)
        terms = torch.stack(
            (self.classification_loss_weight * cls, self.iou_loss_weight * iou, self.dfl_loss_weight * dfl)
        )
        return _normalise(terms, scores.sum(), joint=self.training and torch.is_grad_enabled())

    def _background_and_own_loss(self) -> tuple[float, Callable[[Tensor, Tensor], Tensor]]:
        """Return the weight of the background's loss, and the loss of the classes of objects."""
        if self.use_varifocal_loss:
            return 0.75, varifocal_loss
        if self.use_static_assigner:  # as in PP-YOLOE, which drops alpha when it changes the assigner
            return 0.75, partial(focal_loss, alpha=0.25)
        return 1.0, focal_loss

    def _check_that_objects_match(
        self, predictions: RawPredictions, ground_truth: BatchObjects, assignment: Assignment
    ) -> None:
        """Refuse to go on when no object of the first batches with objects has found an anchor point.

        Counting waits for nothing: the size of the assignment is known to the host.
        """
        objects = np.flatnonzero(~ground_truth.host_iscrowd)
        if self._steps_without_match is None or len(objects) == 0:
            return
        if len(assignment.image):
            self._steps_without_match = None
            return
        self._steps_without_match += 1
        if self._steps_without_match == _PATIENCE:
            level = predictions.levels[0]
            raise AnnotationError(
                f"in the first {_PATIENCE} batches with objects no anchor point lies inside any of them, in the last "
                f"not inside {ground_truth.host_boxes[objects[0]].tolist()} on images of {level.width * level.stride}x"
                f"{level.height * level.stride} pixels: boxes must be xyxy pixels of the network input, neither "
                "normalised nor xywh, and objects larger than a few pixels."
            )


def _normalise(sums: Tensor, score_sum: Tensor, joint: bool) -> LossOutput:
    """Divide the weighted ``sums (3,)`` by the assigned score sum, over all ranks if ``joint``.

    The gradient of the total is ``world_size`` times that of the own sums over the joint score sum, because DDP divides
    by ``world_size``; its value is the joint batch's.
    """
    everything, world_size = torch.cat((sums.detach(), score_sum[None])), 1
    if joint and distributed.is_available() and distributed.is_initialized():
        world_size = distributed.get_world_size()
        distributed.all_reduce(everything)
    normaliser = everything[3].clamp(min=1)
    means = everything[:3] / normaliser
    own = (sums * (world_size / normaliser)).sum()
    total = means.sum() + (own - own.detach())
    return LossOutput(total, dict(zip(("loss_cls", "loss_iou", "loss_dfl"), means.unbind(), strict=True)))
