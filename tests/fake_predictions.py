"""Made-up predictions and ground truth for tests of losses, assigners and post-prediction."""

from collections.abc import Sequence

import torch

from detlit.ops.anchors import make_anchor_points
from detlit.structures import Batch, Level, RawPredictions, Target


def make_predictions(
    size: int = 64,
    batch_size: int = 2,
    num_classes: int = 3,
    reg_max: int = 16,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> RawPredictions:
    """Return random predictions for square images of ``size`` pixels; distances peak at one bin, as trained ones do."""
    generator = torch.Generator().manual_seed(seed)
    levels = tuple(Level(size // stride, size // stride, stride) for stride in (8, 16, 32))
    points, strides = make_anchor_points(levels, dtype=dtype)
    cls_logits = torch.randn(batch_size, len(points), num_classes, generator=generator, dtype=dtype) - 1
    peak = 4 * torch.rand(batch_size, len(points), 4, 1, generator=generator, dtype=dtype)
    reg_logits = -((torch.arange(reg_max + 1) - peak) ** 2) / 2
    return RawPredictions(cls_logits, reg_logits.flatten(2), points, strides, levels)


def with_grad(predictions: RawPredictions) -> RawPredictions:
    """Return the predictions with logits as fresh leaves that collect gradients."""
    return predictions._replace(
        cls_logits=predictions.cls_logits.detach().clone().requires_grad_(),
        reg_logits=predictions.reg_logits.detach().clone().requires_grad_(),
    )


def make_targets(counts: Sequence[int], size: int = 64, num_classes: int = 3, seed: int = 0) -> list[Target]:
    """Return random ground truth, ``counts[i]`` objects in image ``i``."""
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for image_id, count in enumerate(counts):
        corners = torch.rand(count, 2, 2, generator=generator) * size
        boxes = torch.cat((corners.amin(1), corners.amax(1) + 6), dim=1)
        labels = torch.randint(num_classes, (count,), generator=generator)
        targets.append(Target(boxes=boxes, labels=labels, image_id=image_id))
    return targets


def make_batch(targets: Sequence[Target], size: int = 64) -> Batch:
    """Return the targets as a batch with black images."""
    counts = [len(target["labels"]) for target in targets]
    boxes = torch.cat([target["boxes"] for target in targets])
    return Batch(
        images=torch.zeros(len(targets), 3, size, size, dtype=torch.uint8),
        boxes=boxes,
        labels=torch.cat([target["labels"] for target in targets]),
        iscrowd=torch.zeros(len(boxes), dtype=torch.bool),
        image_index=torch.repeat_interleave(torch.tensor(counts)),
        counts=counts,
        image_ids=[target["image_id"] for target in targets],
        dataset_indices=list(range(len(targets))),
        orig_sizes=[(size, size)] * len(targets),
        geometry=torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64).repeat(len(targets), 1),
    )
