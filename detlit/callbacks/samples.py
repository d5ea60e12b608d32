"""The first images of a batch, ready to be drawn or scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.metrics.average_precision import COCO_STATISTICS, evaluate
from detlit.metrics.tables import DetectionTable, ObjectTable, xywh_of
from detlit.reports.batches import Boxes, Shown, pixels_of
from detlit.structures import Batch, Detection, Target

__all__ = ["BatchSample", "are_detections", "copied", "images_and_targets", "joined", "shown_of", "statistic"]


@dataclass(frozen=True)
class BatchSample:
    """The first images of a batch, with what is there and what was found, and when that was.

    Attributes:
        images: ``(n, 3, H, W)``, or a list where they differ in size; on the device.
        targets: of the images.
        detections: of the images, in network pixels; ``None`` if nobody has looked for any.
        step: optimizer steps so far.
        epoch: counted from 0.
        batch: position in the epoch.
    """

    images: Tensor | list[Tensor]
    targets: list[Target]
    detections: list[Detection] | None
    step: int
    epoch: int
    batch: int


def images_and_targets(batch: Any) -> tuple[Tensor | list[Tensor], list[Target]]:
    """Return the images of a batch, as one tensor if they are of one size, and their targets."""
    if isinstance(batch, Batch):
        return batch.images, batch.targets
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and len(batch[0]) == len(batch[1])):
        raise ConfigurationError(
            f"DetectionVisualization cannot draw a batch of type {type(batch).__name__}: yield a detlit Batch, or "
            "(images, targets) with one dict of boxes and labels for each image."
        )
    images, targets = batch
    if not isinstance(images, Tensor):
        images = list(images)
        images = torch.stack(images) if len({image.shape for image in images}) == 1 else images
    return images, list(targets)


def copied(sample: BatchSample) -> BatchSample:
    """Return a sample that does not hold the whole batch in memory, nor sees what later becomes of it."""
    images = sample.images.clone() if isinstance(sample.images, Tensor) else [image.clone() for image in sample.images]
    targets = [
        Target(**{key: value.clone() if isinstance(value, Tensor) else value for key, value in target.items()})  # type: ignore[typeddict-item]
        for target in sample.targets
    ]
    return BatchSample(images, targets, sample.detections, sample.step, sample.epoch, sample.batch)


def joined(detections: Sequence[list[Detection] | None]) -> list[Detection] | None:
    """Return the detections of all, ``None`` if some are not known."""
    known = [found for found in detections if found is not None]
    return [detection for found in known for detection in found] if len(known) == len(detections) else None


def are_detections(found: Any, count: int) -> bool:
    """Tell whether a value is one dict of boxes, scores and labels for each of so many images."""
    return (
        isinstance(found, (list, tuple))
        and len(found) == count
        and all(isinstance(one, dict) and {"boxes", "scores", "labels"} <= one.keys() for one in found)
    )


def statistic(detections: Sequence[Detection], targets: Sequence[Target], name: str) -> float:
    """Return one of COCO's statistics of a few images in network pixels, -1 without objects."""
    found, there = [_host(one) for one in detections], [_host(one) for one in targets]
    images = [np.full(len(one["boxes"]), row) for row, one in enumerate(found)]
    object_images = [np.full(len(one["boxes"]), row) for row, one in enumerate(there)]
    boxes = np.concatenate([one["boxes"].reshape(-1, 4) for one in there])
    crowds = [one.get("iscrowd", np.zeros(len(one["boxes"]), bool)).astype(bool) for one in there]
    evaluation, _ = evaluate(
        DetectionTable(
            np.concatenate(images),
            np.concatenate([one["labels"] for one in found]),
            np.concatenate([one["scores"] for one in found]),
            xywh_of(np.concatenate([one["boxes"].reshape(-1, 4) for one in found])),
        ),
        ObjectTable(
            np.concatenate(object_images),
            np.concatenate([one["labels"] for one in there]),
            np.concatenate(crowds),
            np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2], axis=1),
            xywh_of(boxes),
        ),
    )
    return float(evaluation.statistics()[COCO_STATISTICS.index(name)])


def _host(values: Any) -> dict[str, NDArray[Any]]:
    return {
        key: value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else value.detach().float().cpu().numpy()
        for key, value in values.items()
        if key in ("boxes", "labels", "scores", "iscrowd") and isinstance(value, Tensor)
    }


def shown_of(
    image: Tensor, target: Target, detection: Detection | None, threshold: float | None, max_boxes: int
) -> Shown:
    """Return what a picture shows of an image: its objects, and with a threshold what was found; without padding."""
    there = _host(target)
    pixels = pixels_of(image)
    left, top = 0, 0
    if "orig_boxes" in target and "geometry" in target and "orig_size" in target:  # not augmented
        left, top, right, bottom = _content(target, *pixels.shape[:2])
        pixels = pixels[top:bottom, left:right]
    offset = np.array([left, top, left, top], dtype=np.float32)
    crowds = there["iscrowd"].astype(bool).tolist() if "iscrowd" in there else None
    halves = [Boxes(there["boxes"].reshape(-1, 4) - offset, there["labels"].tolist(), None, crowds)]
    if threshold is not None and detection is not None:
        found = _host(detection)
        order = np.argsort(-found["scores"], kind="stable")
        above = order[found["scores"][order] > threshold]
        order = above[:max_boxes]
        boxes, scores = found["boxes"].reshape(-1, 4)[order] - offset, found["scores"][order].tolist()
        halves.append(Boxes(boxes, found["labels"][order].tolist(), scores, total=len(above)))
    path = target.get("path", "")
    name = Path(path).name if path else f"image {target['image_id']}" if "image_id" in target else ""
    return Shown(pixels, name, halves)


def _content(target: Target, height: int, width: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of what is not padding."""
    scale_x, scale_y, left, top = (float(value) for value in target["geometry"])
    right, bottom = left + scale_x * target["orig_size"][1], top + scale_y * target["orig_size"][0]
    box = (max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom)))
    return box if box[2] > box[0] and box[3] > box[1] else (0, 0, width, height)
