"""The loss of PP-YOLOE, which YOLO-NAS trains with too."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, distributed

from detlit.assigners import Assigner, Assignment, ATSSAssigner, TaskAlignedAssigner
from detlit.errors import ConfigurationError
from detlit.losses.base import DetectionLoss
from detlit.losses.functional import distribution_focal_loss, focal_loss, varifocal_loss
from detlit.ops.boxes import (
    aligned_giou,
    boxes_to_distances,
    distances_to_boxes,
    expected_distances,
    full_precision,
    side_bins,
)
from detlit.ops.targets import collect_ground_truth
from detlit.structures import Batch, LossOutput, RawPredictions, Target

__all__ = ["PPYoloELoss"]


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
        self.num_classes = num_classes
        self.use_varifocal_loss = use_varifocal_loss
        self.use_static_assigner = use_static_assigner
        self.classification_loss_weight = classification_loss_weight
        self.iou_loss_weight = iou_loss_weight
        self.dfl_loss_weight = dfl_loss_weight
        self.assigner = TaskAlignedAssigner() if assigner is None else assigner
        self.static_assigner = ATSSAssigner() if static_assigner is None else static_assigner

    def forward(self, predictions: RawPredictions, batch: Batch | Sequence[Target]) -> LossOutput:
        """Return the loss with the terms ``loss_cls``, ``loss_iou`` and ``loss_dfl``.

        Raises:
            ConfigurationError: predictions with another number of classes or images than expected.
            AnnotationError: labels out of range or boxes that are not finite, in targets that are still on the CPU.
        """
        with torch.autocast(predictions.cls_logits.device.type, enabled=False):
            predictions = _in_full_precision(predictions)
            num_classes = predictions.cls_logits.shape[-1]
            if self.num_classes not in (None, num_classes):
                raise ConfigurationError(
                    f"the loss was built with num_classes={self.num_classes} and the detector predicts {num_classes}: "
                    "leave the loss's num_classes out."
                )
            ground_truth = collect_ground_truth(batch, num_classes, like=predictions.reg_logits)
            assigner = self.static_assigner if self.use_static_assigner else self.assigner
            return self._loss(predictions, assigner(predictions, ground_truth))

    def _loss(self, predictions: RawPredictions, assignment: Assignment) -> LossOutput:
        """Return the loss for an assignment."""
        image, anchor = torch.nonzero(assignment.labels < predictions.cls_logits.shape[-1], as_tuple=True)
        scores = assignment.scores[image, anchor]
        # Without a positive the indexed tensors are empty, and the regression branch still gets its (zero) gradient.
        iou, dfl = _box_losses(
            predictions.reg_logits[image, anchor],
            predictions.anchor_points[anchor],
            predictions.strides[anchor],
            assignment.boxes[image, anchor],
            scores,
        )
        positive = (image, anchor, assignment.labels[image, anchor])
        cls = _classification_loss(self._elementwise_loss(), predictions.cls_logits, positive, scores)
        terms = torch.stack(
            (self.classification_loss_weight * cls, self.iou_loss_weight * iou, self.dfl_loss_weight * dfl)
        )
        return _normalise(terms, scores.sum(), joint=self.training and torch.is_grad_enabled())

    def _elementwise_loss(self) -> Callable[..., Tensor]:
        if self.use_varifocal_loss:
            return varifocal_loss
        return partial(focal_loss, alpha=0.25 if self.use_static_assigner else None)


def _in_full_precision(predictions: RawPredictions) -> RawPredictions:
    """Return the predictions in float32, or float64 if they are."""
    cls_logits, reg_logits = full_precision(predictions.cls_logits), full_precision(predictions.reg_logits)
    return predictions._replace(
        cls_logits=cls_logits,
        reg_logits=reg_logits,
        anchor_points=predictions.anchor_points.to(reg_logits.dtype),
        strides=predictions.strides.to(reg_logits.dtype),
    )


def _classification_loss(
    elementwise_loss: Callable[..., Tensor], logits: Tensor, positive: tuple[Tensor, Tensor, Tensor], scores: Tensor
) -> Tensor:
    """Return the summed loss of ``logits (B, A, C)``: all as background, then corrected at the ``(P,)`` positives.

    This spares one-hot targets as large as the logits.
    """
    own = logits[positive]
    return elementwise_loss(logits).sum() + (elementwise_loss(own, scores) - elementwise_loss(own)).sum()


def _box_losses(
    reg_logits: Tensor, anchor_points: Tensor, strides: Tensor, boxes: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the summed GIoU and distribution focal losses of ``P`` positives, weighted by ``scores (P,)``.

    Args:
        reg_logits: ``(P, 4 * (reg_max + 1))`` distance bins before the softmax.
        anchor_points: ``(P, 2)`` xy pixels.
        strides: ``(P, 1)`` pixels.
        boxes: ``(P, 4)`` assigned boxes, xyxy pixels.
        scores: ``(P,)`` assigned scores.
    """
    points, boxes = anchor_points / strides, boxes / strides
    predicted = distances_to_boxes(expected_distances(reg_logits), points)
    iou = ((1 - aligned_giou(predicted, boxes)) * scores).sum()

    reg_max = reg_logits.shape[-1] // 4 - 1
    distances = boxes_to_distances(boxes, points).clamp(0, reg_max - 0.01)
    dfl = distribution_focal_loss(side_bins(reg_logits), distances).mean(-1)
    return iou, (dfl * scores).sum()


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
