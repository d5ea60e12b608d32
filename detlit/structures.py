"""The values that travel between the parts of detlit. The letters of every shape are defined here once.

======  =====================================================================================
letter  meaning
======  =====================================================================================
``B``   images in a batch
``A``   anchor points of all levels together: the sum of ``H / stride * W / stride``
``C``   classes
``N``   objects of one image
``M``   objects of a whole batch
``K``   detections of one image
``H``   height, ``W`` width, in pixels of the network input
======  =====================================================================================

Boxes are absolute ``xyxy`` pixels of the network input unless a name says otherwise.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from detlit.errors import ConfigurationError

__all__ = [
    "Batch",
    "Detection",
    "Level",
    "LossOutput",
    "Preprocessing",
    "RawPredictions",
    "Target",
]


class Level(NamedTuple):
    """One feature map the head predicts on; host integers, so that shapes never cost a device sync."""

    height: int
    width: int
    stride: int


class RawPredictions(NamedTuple):
    """What a detector returns, the same in training and evaluation.

    Attributes:
        cls_logits: ``(B, A, C)`` class scores before the sigmoid.
        reg_logits: ``(B, A, 4 * (reg_max + 1))`` distance bins before the softmax; sides left, top, right, bottom.
        anchor_points: ``(A, 2)`` xy pixels, the cell centres.
        strides: ``(A, 1)`` pixels per cell.
        levels: the feature maps in the order in which their anchors are concatenated.
    """

    cls_logits: Tensor
    reg_logits: Tensor
    anchor_points: Tensor
    strides: Tensor
    levels: tuple[Level, ...]


class LossOutput(NamedTuple):
    """A loss to step on and its weighted terms, detached, for the log (``{"loss_cls": ..., ...}``)."""

    total: Tensor
    terms: dict[str, Tensor]


class Detection(TypedDict):
    """Detections of one image, best first, in the layout torchvision and torchmetrics use.

    ``boxes (K, 4)`` float32 xyxy, ``scores (K,)`` float32, ``labels (K,)`` int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Target(TypedDict, total=False):
    """Ground truth of one image; ``boxes`` and ``labels`` are enough for the loss, the rest is for evaluation.

    ``boxes (N, 4)`` float32 xyxy pixels of the network input; ``labels (N,)`` int64, contiguous from 0; ``iscrowd``
    ``(N,)`` bool; ``image_id`` and ``dataset_index`` integers; ``repeat``, how often the image was drawn in the epoch
    before; ``orig_size`` (height, width) of the image file; ``geometry`` float64 (scale_x, scale_y, left, top):
    ``network = original * scale + offset``; ``orig_boxes (N', 4)`` float64 in original pixels with ``orig_labels``,
    ``orig_iscrowd`` and ``orig_area``, unfiltered, because pycocotools counts what a training filter drops; ``path`` of
    the image, for messages.
    """

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    image_id: int
    dataset_index: int
    repeat: int
    orig_size: tuple[int, int]
    geometry: Tensor
    orig_boxes: Tensor
    orig_labels: Tensor
    orig_iscrowd: Tensor
    orig_area: Tensor
    path: str


_Objects = tuple[Tensor, Tensor, Tensor]


class _Moved(NamedTuple):
    """The objects of a batch before it moved, and how to tell whether they are still the same on the device.

    Attributes:
        originals: boxes, labels and iscrowd on the CPU.
        copies: the same on the device, held so that no other tensor takes their ids.
        versions: of the copies when they were made.
    """

    originals: _Objects
    copies: _Objects
    versions: list[tuple[int, int]]


def _versions(tensors: _Objects) -> list[tuple[int, int]]:
    """Return what changes when tensors are replaced or written to; inference tensors do not tell the latter."""
    return [(id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


class Batch:
    """A batch as it crosses the worker boundary: few flat tensors instead of many small ones.

    It is deliberately not a dataclass, tuple or dict: Lightning walks into those and would cast the boxes to the
    precision of the run (bf16 rounds a box by a pixel and a class id by one). As it is, Lightning and the DataLoader
    call :meth:`to` and :meth:`pin_memory` and leave the values alone.

    Args:
        images: ``(B, 3, H, W)`` uint8 RGB, or a float image scaled to [0, 1].
        boxes: ``(M, 4)`` float32 xyxy pixels of the network input, images one after another.
        labels: ``(M,)`` int64.
        iscrowd: ``(M,)`` bool.
        image_index: ``(M,)`` int64 position in the batch of each object's image, ascending.
        counts: objects of each image, on the host.
        image_ids: ids of the images, on the host.
        dataset_indices: position of each image in its data set, on the host: evaluation counts each once.
        orig_sizes: (height, width) of each image file, on the host.
        geometry: ``(B, 4)`` float64, on the host: scale_x, scale_y, left, top; ``network = original * scale + offset``.
        orig_objects: ``(M', 8)`` float64, on the host: position in the batch, label, iscrowd, area, x1, y1, x2, y2 in
            original pixels, unfiltered; ``None`` in training batches.
        paths: where the images came from, for messages and pictures.
        repeats: how often each image was drawn in the epoch before, on the host; never unless given.
    """

    def __init__(
        self,
        images: Tensor,
        boxes: Tensor,
        labels: Tensor,
        iscrowd: Tensor,
        image_index: Tensor,
        *,
        counts: Sequence[int],
        image_ids: Sequence[int],
        dataset_indices: Sequence[int],
        orig_sizes: Sequence[tuple[int, int]],
        geometry: Tensor,
        orig_objects: Tensor | None = None,
        paths: Sequence[str] = (),
        repeats: Sequence[int] = (),
    ) -> None:
        self.images = images
        self.boxes = boxes
        self.labels = labels
        self.iscrowd = iscrowd
        self.image_index = image_index
        self.counts = list(counts)
        self.image_ids = list(image_ids)
        self.dataset_indices = list(dataset_indices)
        self.orig_sizes = list(orig_sizes)
        self.geometry = geometry
        self.orig_objects = orig_objects
        self.paths = list(paths)
        self.repeats = list(repeats) or [0] * len(self.counts)
        self._moved: _Moved | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self.images.shape[0])

    @property
    def _objects(self) -> "_Objects":
        return self.boxes, self.labels, self.iscrowd

    @property
    def host_objects(self) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, labels and iscrowd on the CPU, for planning a step without waiting for the device.

        They are those :meth:`to` moved; only if they were made or changed on the device since, they are copied from it.
        """
        if self._moved is not None and self._moved.versions == _versions(self._objects):
            return self._moved.originals
        boxes, labels, iscrowd = (tensor.cpu() for tensor in self._objects)
        return boxes, labels, iscrowd

    def _with_device_tensors(self, move: Any) -> "Batch":
        """Return a batch whose device-side tensors went through ``move``; the host side is shared."""
        batch = object.__new__(type(self))
        batch.__dict__.update(self.__dict__)
        for name in ("images", "boxes", "labels", "iscrowd", "image_index"):
            setattr(batch, name, move(getattr(self, name)))
        return batch

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Return the batch with images and objects on ``device``; what only the host reads stays there."""
        batch = self._with_device_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        moving = batch.boxes.device.type != "cpu"
        batch._moved = _Moved(self.host_objects, batch._objects, _versions(batch._objects)) if moving else None
        return batch

    def pin_memory(self) -> "Batch":
        """Return the batch with page-locked device-side tensors, as the DataLoader asks."""
        return self._with_device_tensors(lambda tensor: tensor.pin_memory())

    @property
    def targets(self) -> list[Target]:
        """The ground truth as one dict of views per image, in the layout torchvision and torchmetrics use."""
        boxes, labels, iscrowd = (torch.split(x, self.counts) for x in (self.boxes, self.labels, self.iscrowd))
        targets: list[Target] = []
        for i in range(len(self)):
            target = Target(
                boxes=boxes[i],
                labels=labels[i],
                iscrowd=iscrowd[i],
                image_id=self.image_ids[i],
                dataset_index=self.dataset_indices[i],
                repeat=self.repeats[i],
                orig_size=self.orig_sizes[i],
                geometry=self.geometry[i],
            )
            if self.paths:
                target["path"] = self.paths[i]
            if self.orig_objects is not None:
                rows = self.orig_objects[self.orig_objects[:, 0] == i]
                target["orig_labels"] = rows[:, 1].long()
                target["orig_iscrowd"] = rows[:, 2].bool()
                target["orig_area"] = rows[:, 3]
                target["orig_boxes"] = rows[:, 4:]
            targets.append(target)
        return targets


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes network input: one rule for training, validation, predict and export.

    Args:
        size: (height, width) of the network input in pixels, multiples of 32.
        content_size: (height, width) the image is fitted into before padding; ``None`` is ``size``. YOLO-NAS' published
            weights fit 636 into 640.
        keep_ratio: scale both sides alike and pad (letterbox); otherwise stretch.
        anchor: where the content sits in the canvas: ``"center"`` or ``"top_left"``.
        pad_value: grey level of the padding, 0 to 255.
        channel_order: the order the detector wants; files are read as RGB.
        mean: subtracted per channel, in [0, 1] units and in the detector's channel order; ``None`` for nothing.
        std: divided by per channel, in [0, 1] units; ``None`` for nothing.

    Raises:
        ConfigurationError: a size that is not two positive multiples of 32, content larger than the canvas, no grey
            level, or mean and std that cannot be subtracted and divided by.
    """

    size: tuple[int, int] = (640, 640)
    content_size: tuple[int, int] | None = None
    keep_ratio: bool = True
    anchor: Literal["center", "top_left"] = "center"
    pad_value: int = 114
    channel_order: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check the sizes, and turn lists (as YAML and checkpoints give them) into tuples."""
        for name in ("size", "content_size", "mean", "std"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, (value,) if isinstance(value, (int, float)) else tuple(value))
        for name, pair in (("size", self.size), ("content_size", self.content_size or self.size)):
            if len(pair) != 2:
                raise ConfigurationError(f"{name}={list(pair)} is no image size: give height and width, [640, 640].")
        self._check_values()
        for side in self.size:
            if side < 32 or side % 32:
                nearest = max(32, round(side / 32) * 32)
                raise ConfigurationError(
                    f"image size {self.size[0]}x{self.size[1]} does not fit the detector's strides: "
                    f"both sides must be positive multiples of 32, the nearest to {side} is {nearest}."
                )
        content = self.content_size or self.size
        if min(content) < 1 or content[0] > self.size[0] or content[1] > self.size[1]:
            raise ConfigurationError(
                f"content size {content[0]}x{content[1]} does not fit into the image size "
                f"{self.size[0]}x{self.size[1]}: choose one between 1 and the image size."
            )
        if self.anchor not in ("center", "top_left") or self.channel_order not in ("RGB", "BGR"):
            raise ConfigurationError(
                f"anchor={self.anchor!r}, channel_order={self.channel_order!r} is unknown: "
                "choose 'center' or 'top_left', 'RGB' or 'BGR'."
            )

    def _check_values(self) -> None:
        if not 0 <= self.pad_value <= 255:
            raise ConfigurationError(f"pad_value={self.pad_value} is no grey level: choose 0 to 255.")
        if self.std is not None and not all(value > 0 for value in self.std):
            raise ConfigurationError(f"std={list(self.std)} cannot be divided by: give positive numbers.")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ConfigurationError(
                f"mean={list(self.mean)} and std={list(self.std)} are of different channels: give each one a channel."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as stored in checkpoints and exported models."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Preprocessing":
        """Rebuild from :meth:`to_dict`; keys a newer version added are refused by name."""
        unknown = set(data) - {field.name for field in fields(cls)}
        if unknown:
            raise ConfigurationError(
                f"preprocessing has unknown entries {sorted(unknown)}: a newer detlit wrote it, upgrade."
            )
        return cls(**data)

    def geometry(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return (scale_x, scale_y, left, top) for an image: ``network = original * scale + offset``.

        The one rounding rule: the content's sides are ``round(side * ratio)`` (at least 1) pixels, and the scales are
        those of the rounded content, so that its edges fall on pixel edges; an odd padding puts the extra pixel right
        and below.
        """
        content_height, content_width = self.content_shape(height, width)
        if self.anchor == "center":
            top, left = (self.size[0] - content_height) // 2, (self.size[1] - content_width) // 2
        else:
            top, left = 0, 0
        return content_width / width, content_height / height, float(left), float(top)

    def content_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) in pixels of a resized image before padding."""
        fit_height, fit_width = self.content_size or self.size
        if not self.keep_ratio:
            return fit_height, fit_width
        ratio = min(fit_height / height, fit_width / width)
        return max(1, round(height * ratio)), max(1, round(width * ratio))
