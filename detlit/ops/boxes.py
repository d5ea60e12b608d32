"""Box arithmetic: distances to boxes and back, and overlaps. Everything here is pure and differentiable."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "aligned_giou",
    "boxes_to_distances",
    "decode_boxes",
    "distances_to_boxes",
    "expected_distances",
    "full_precision",
    "iou_of_sides",
    "side_bins",
]


def full_precision(values: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32, and float64 as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def side_bins(reg_logits: Tensor) -> Tensor:
    """Return ``(..., 4 * (reg_max + 1))`` distance bins as ``(..., 4, reg_max + 1)``, one row per side."""
    return reg_logits.reshape(*reg_logits.shape[:-1], 4, reg_logits.shape[-1] // 4)


def expected_distances(reg_logits: Tensor) -> Tensor:
    """Return the expectation of each side's distance, eq. 5 of https://arxiv.org/abs/2006.04388.

    Args:
        reg_logits: ``(..., 4 * (reg_max + 1))`` bins before the softmax; sides left, top, right, bottom.

    Returns:
        ``(..., 4)`` distances in stride units, at least float32.
    """
    probabilities = full_precision(side_bins(reg_logits)).softmax(-1)
    bins = torch.arange(probabilities.shape[-1], device=probabilities.device, dtype=probabilities.dtype)
    # Not a matrix product: autocast would run that in half precision, and a GPU in TF32.
    distances: Tensor = (probabilities * bins).sum(-1)
    return distances


def distances_to_boxes(distances: Tensor, points: Tensor) -> Tensor:
    """Return the ``(..., 4)`` xyxy boxes with sides ``distances`` left, top, right and below of ``points (..., 2)``.

    Distances and points have the same unit, and so have the boxes.
    """
    left_top, right_bottom = distances.chunk(2, dim=-1)
    return torch.cat((points - left_top, points + right_bottom), dim=-1)


def boxes_to_distances(boxes: Tensor, points: Tensor) -> Tensor:
    """Return the ``(..., 4)`` distances left, top, right, bottom from ``points`` to the sides of xyxy ``boxes``.

    The inverse of :func:`distances_to_boxes`; a side that the point lies beyond is negative.
    """
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def decode_boxes(reg_logits: Tensor, anchor_points: Tensor, strides: Tensor) -> Tensor:
    """Return the predicted boxes.

    Args:
        reg_logits: ``(..., A, 4 * (reg_max + 1))`` bins before the softmax.
        anchor_points: ``(A, 2)`` xy pixels.
        strides: ``(A, 1)`` pixels per stride unit.

    Returns:
        ``(..., A, 4)`` xyxy pixels, at least float32.
    """
    return distances_to_boxes(expected_distances(reg_logits) * strides, anchor_points)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _intersections(boxes: Tensor, others: Tensor) -> Tensor:
    left_top = torch.maximum(boxes[..., :2], others[..., :2])
    right_bottom = torch.minimum(boxes[..., 2:], others[..., 2:])
    return (right_bottom - left_top).clamp(min=0).prod(-1)


def iou_of_sides(boxes: Sequence[Tensor], others: Sequence[Tensor], eps: float = 1e-9) -> Tensor:
    """Return the intersection over union of xyxy boxes given as four tensors, one per side, that broadcast.

    Sides in tensors of their own are contiguous, which makes this several times faster than rows of four.

    Args:
        boxes: left, top, right and bottom sides.
        others: the same of the boxes they are compared with.
        eps: added to the union, so that two empty boxes overlap by 0.
    """
    left, top, right, bottom = boxes
    other_left, other_top, other_right, other_bottom = others
    width = (torch.minimum(right, other_right) - torch.maximum(left, other_left)).clamp(min=0)
    height = (torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)).clamp(min=0)
    area = (right - left).clamp(min=0) * (bottom - top).clamp(min=0)
    other_area = (other_right - other_left).clamp(min=0) * (other_bottom - other_top).clamp(min=0)
    intersection = width * height
    return intersection / (area + other_area - intersection + eps)


def aligned_giou(boxes: Tensor, others: Tensor, eps: float = 1e-10) -> Tensor:
    """Return the ``(N,)`` generalized IoU of xyxy ``boxes (N, 4)`` with ``others (N, 4)``, row by row.

    ``GIoU = IoU - (C - U) / C`` with ``C`` the area of the smallest box around both and ``U`` their union
    (https://arxiv.org/abs/1902.09630); ``eps`` is added to ``U`` and ``C``.
    """
    intersections = _intersections(boxes, others)
    unions = _areas(boxes) + _areas(others) - intersections + eps
    left_top = torch.minimum(boxes[:, :2], others[:, :2])
    right_bottom = torch.maximum(boxes[:, 2:], others[:, 2:])
    enclosing = (right_bottom - left_top).prod(-1) + eps
    return intersections / unions - (enclosing - unions) / enclosing
