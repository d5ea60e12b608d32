"""How good predictions are on a validation split, whoever computes them."""

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from torch import Tensor

from detlit.metrics import CocoMeanAveragePrecision
from detlit.ops.coordinates import to_original_pixels
from detlit.structures import Batch, Detection

__all__ = ["mean_average_precision"]


@torch.no_grad()
def mean_average_precision(
    detect: Callable[[Tensor], list[Detection]], loader: Iterable[Batch], num_batches: int | None = None
) -> float:
    """Return COCO's mAP, as ``detlit validate`` logs it.

    Args:
        detect: images ``(B, 3, H, W)`` uint8 to detections in pixels of the network input.
        loader: batches of a validation split.
        num_batches: only the first so many; ``None`` for all.
    """
    metric = CocoMeanAveragePrecision()
    for batch in islice(loader, num_batches):
        detections = [
            Detection(boxes=found["boxes"].cpu(), scores=found["scores"].cpu(), labels=found["labels"].cpu())
            for found in detect(batch.images)
        ]
        metric.update(to_original_pixels(detections, batch.geometry, batch.orig_sizes), batch.targets)
    return float(metric.compute()["map"])
