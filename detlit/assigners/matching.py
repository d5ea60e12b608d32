"""From claims to one object per anchor point, without a tensor of objects times anchor points.

An anchor point of a batch is known by its ``position``: image times ``A`` plus anchor point.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from detlit.ops.boxes import full_precision, iou_of_sides, side_bins
from detlit.ops.targets import BatchObjects
from detlit.structures import RawPredictions

__all__ = ["Sides", "chunk_size", "decode_at", "first_largest", "resolve_claims", "to_device"]

Sides = Sequence[Tensor]
"""Left, top, right and bottom of boxes, in tensors of their own."""


def chunk_size(device: torch.device) -> int:
    """Return how many pairs of object and anchor point to look at together: on a CPU, what its cache holds."""
    return 1 << 16 if device.type == "cpu" else 1 << 20


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return a copy of a host array on the device, through page-locked memory, so that the host need not wait."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def decode_at(predictions: RawPredictions, positions: Tensor) -> Tensor:
    """Return the sides ``(4, P)`` of the boxes predicted at ``positions (P,)``, xyxy pixels.

    The same as :func:`~detlit.ops.boxes.decode_boxes`, faster because the positions come last. The last bit of a box
    does not depend on which other positions are asked for, as it would with a softmax: equal predictions stay equal.
    """
    anchors = positions % len(predictions.anchor_points)
    rows = predictions.reg_logits.flatten(0, 1).index_select(0, positions)
    bins = side_bins(full_precision(rows)).permute(1, 2, 0).contiguous()  # (4, bins, P)
    weights = bins.sub_(bins.amax(1, keepdim=True)).exp_().unbind(1)
    total, distances = torch.zeros_like(weights[0]), torch.zeros_like(weights[0])
    for weight in reversed(weights):  # the bin of distance k is in k of the totals added
        distances += total
        total += weight
    distances /= total
    distances *= predictions.strides.index_select(0, anchors)[:, 0]
    points = predictions.anchor_points.index_select(0, anchors).T
    return torch.cat((points - distances[:2], points + distances[2:]))


def first_largest(values: Tensor, k: int) -> Tensor:
    """Return ``(N, k)`` columns of the ``k`` largest of each row, of equal ones the lowest, in any order.

    :func:`torch.topk` leaves open which of several equal values it takes.

    Args:
        values: ``(N, W)`` float32 or float64, not negative except for -1; ``W >= k``.
        k: how many.
    """
    if values.dtype != torch.float32:
        return values.sort(dim=1, descending=True, stable=True).indices[:, :k]
    # The bits of such numbers order as the numbers do. The column below them makes all keys differ.
    keys = values.view(torch.int32).long() << 32
    keys -= torch.arange(values.shape[1], device=values.device)
    return keys.topk(k, dim=1, sorted=False).indices


def resolve_claims(
    positions: Tensor,
    objects: Tensor,
    boxes: Tensor,
    ground_truth: BatchObjects,
    num_anchors: int,
    anchor_boxes: Callable[[Tensor], Sides],
    eps: float = 1e-9,
) -> tuple[Tensor, Tensor]:
    """Leave each anchor point to one object.

    An anchor point that several objects claim goes to the object it overlaps most, of equal ones to the first. All
    objects of the image but crowds compete, also those that did not claim it: so do PaddleDetection and SuperGradients,
    where the published weights come from, and it only shows where boxes crowd.

    Args:
        positions: claimed anchor points, in any shape and order; ``B * A`` where there is no claim.
        objects: who claims them, rows of the ground truth, in the same shape.
        boxes: ``(M, 4)`` of the ground truth, on the device to compute on, which is that of the claims.
        ground_truth: how many objects the images have.
        num_anchors: ``A``.
        anchor_boxes: returns the boxes, whose overlap decides, at ``(T,)`` positions.
        eps: of that overlap, see :func:`~detlit.ops.boxes.iou_of_sides`.

    Returns:
        ``(P,)`` positions, ascending, and ``(P,)`` objects.
    """
    nowhere = len(ground_truth.counts) * num_anchors
    positions, objects = positions.flatten(), objects.flatten()
    claims = torch.zeros(nowhere + 1, dtype=torch.int32, device=positions.device)
    claims.index_add_(0, positions, torch.ones_like(positions, dtype=torch.int32))
    owner = torch.full((nowhere + 1,), -1, device=positions.device).scatter_(0, positions, objects)

    contested = (claims[:nowhere] > 1).nonzero()[:, 0]
    if len(contested):
        image = contested // num_anchors
        winners = _most_overlapping(image, anchor_boxes(contested), boxes, ground_truth, eps)
        owner.index_copy_(0, contested, winners)
    taken = (owner[:nowhere] >= 0).nonzero()[:, 0]
    return taken, owner.index_select(0, taken)


def _most_overlapping(
    images: Tensor, anchor_boxes: Sides, boxes: Tensor, ground_truth: BatchObjects, eps: float
) -> Tensor:
    """Return ``(T,)`` the object of its image that each anchor point overlaps most, of equal ones the first."""
    counts = np.asarray(ground_truth.counts)
    first, column = np.cumsum(counts) - counts, np.arange(counts.max())
    rows = np.minimum(first[:, None] + column, counts.sum() - 1)
    absent = (column >= counts[:, None]) | ground_truth.host_iscrowd[rows]
    padded_rows, padded_absent = to_device(rows, boxes.device), to_device(absent, boxes.device)
    sides = [side[padded_rows] for side in boxes.T.contiguous()]  # each (B, N)

    winners = []
    size = max(1, chunk_size(boxes.device) // len(column))
    for image, *own in zip(*(torch.split(column, size) for column in (images, *anchor_boxes)), strict=True):
        objects = [side.index_select(0, image) for side in sides]  # each (T, N)
        overlap = iou_of_sides(objects, [side[:, None] for side in own], eps)
        best = overlap.masked_fill_(padded_absent.index_select(0, image), -1).argmax(1, keepdim=True)
        winners.append(padded_rows.index_select(0, image).gather(1, best)[:, 0])
    return torch.cat(winners)
