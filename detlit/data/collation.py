"""Samples to batches."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import default_collate

from detlit.errors import AnnotationError, ConfigurationError
from detlit.ops.targets import check_boxes
from detlit.structures import Batch, Target

__all__ = ["collate"]

_UNCHANGED = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)


def collate(samples: Sequence[tuple[Tensor, Target]]) -> Batch:
    """Return images and targets as one flat :class:`~detlit.structures.Batch`.

    Only ``boxes`` and ``labels`` are required of a target, so that torchvision-style data sets fit.

    Args:
        samples: images ``(3, H, W)`` of one size, each with its target.

    Raises:
        ConfigurationError: the images differ in size.
        AnnotationError: a box is NaN or infinite, boxes look normalised, or an image has not one label per box.
    """
    images, targets = [image for image, _ in samples], [target for _, target in samples]
    _check_sizes(images)
    names = [target.get("path") or f"number {position} of the batch" for position, target in enumerate(targets)]
    counts = [_count(target, name) for target, name in zip(targets, names, strict=True)]
    boxes = torch.cat([target["boxes"].float().reshape(-1, 4) for target in targets])
    check_boxes(boxes.numpy(), counts, names, image_size=(images[0].shape[-2], images[0].shape[-1]))
    return Batch(
        images=default_collate(images),  # in a worker it stacks straight into shared memory
        boxes=boxes,
        labels=torch.cat([target["labels"].long() for target in targets]),
        iscrowd=torch.cat([_iscrowd(target) for target in targets]),
        image_index=torch.repeat_interleave(torch.tensor(counts)),
        counts=counts,
        image_ids=[target.get("image_id", -1) for target in targets],
        dataset_indices=[target.get("dataset_index", -1) for target in targets],
        orig_sizes=[
            target.get("orig_size", (image.shape[1], image.shape[2]))
            for image, target in zip(images, targets, strict=True)
        ],
        geometry=torch.stack([target.get("geometry", _UNCHANGED) for target in targets]),
        orig_objects=_original_objects(targets),
        paths=[target.get("path", "") for target in targets],
        repeats=[target.get("repeat", 0) for target in targets],
    )


def _check_sizes(images: Sequence[Tensor]) -> None:
    sizes = sorted({f"{image.shape[-1]}x{image.shape[-2]}" for image in images})
    if len(sizes) > 1:
        raise ConfigurationError(
            f"images of one batch differ in size ({', '.join(sizes[:3])}): set the data set's transform to a "
            "Letterbox, or use DetectionDataModule, which does."
        )


def _count(target: Target, name: str) -> int:
    """Return the number of objects of a target, after checking it."""
    boxes, labels = target["boxes"], target["labels"]
    if boxes.numel() != 4 * len(labels):
        raise AnnotationError(f"image {name} has {len(labels)} labels for {boxes.numel() / 4:g} boxes: give one each.")
    return len(labels)


def _iscrowd(target: Target) -> Tensor:
    iscrowd = target.get("iscrowd")
    return torch.zeros(len(target["labels"]), dtype=torch.bool) if iscrowd is None else iscrowd.bool()


def _original_objects(targets: Sequence[Target]) -> Tensor | None:
    """Return ``(M', 8)`` float64 rows, laid out as in :class:`~detlit.structures.Batch`, ``None`` without originals."""
    if not all("orig_boxes" in target for target in targets):
        return None
    rows = [
        torch.cat(
            [
                torch.full((len(target["orig_boxes"]), 1), float(position), dtype=torch.float64),
                target["orig_labels"].double()[:, None],
                target["orig_iscrowd"].double()[:, None],
                target["orig_area"].double()[:, None],
                target["orig_boxes"].double(),
            ],
            dim=1,
        )
        for position, target in enumerate(targets)
    ]
    return torch.cat(rows)
