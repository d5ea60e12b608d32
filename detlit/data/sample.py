"""One image with its objects on the way from file to batch."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.data.sampler import SampleIndex
from detlit.structures import Target

__all__ = ["Originals", "Sample", "clip_boxes", "to_tensors"]


@dataclass(frozen=True)
class Originals:
    """The objects of an image file exactly as annotated: what pycocotools counts, degenerate boxes included.

    ``boxes (N', 4)`` float64 xyxy pixels of the file, ``labels (N',)`` int64, ``iscrowd (N',)`` bool, ``area (N',)``
    float64 square pixels.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]
    area: NDArray[np.float64]


@dataclass
class Sample:
    """An image and its objects; transforms return changed copies (``dataclasses.replace``).

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        boxes: ``(N, 4)`` float64 xyxy pixels of ``image``, inside it and not empty.
        labels: ``(N,)`` int64, contiguous from 0.
        iscrowd: ``(N,)`` bool.
        image_id: the data set's name for the image.
        dataset_index: position in the data set.
        path: where the image came from, for messages.
        orig_size: (height, width) of the image that ``originals`` and detections are measured in.
        geometry: scale_x, scale_y, left, top with ``image = original * scale + offset``.
        originals: the objects as annotated; ``None`` once augmentation has made another image of it.
        request: what the sampler drew it for; ``None`` outside a training loader.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]
    image_id: int
    dataset_index: int
    path: str
    orig_size: tuple[int, int]
    geometry: tuple[float, float, float, float] = (1.0, 1.0, 0.0, 0.0)
    originals: Originals | None = None
    request: SampleIndex | None = None


def clip_boxes(boxes: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return ``(N, 4)`` xyxy boxes cut off at the edges of an image of ``height`` by ``width`` pixels."""
    return np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float64))


def to_tensors(sample: Sample) -> tuple[Tensor, Target]:
    """Return the image ``(3, H, W)`` uint8 and its target."""
    planes = np.empty((3, *sample.image.shape[:2]), dtype=np.uint8)
    cv2.split(sample.image, list(planes))
    image = torch.from_numpy(planes)
    target = Target(
        boxes=torch.from_numpy(sample.boxes).float(),
        labels=torch.from_numpy(sample.labels),
        iscrowd=torch.from_numpy(sample.iscrowd),
        image_id=sample.image_id,
        dataset_index=sample.dataset_index,
        path=sample.path,
        orig_size=sample.orig_size,
        geometry=torch.tensor(sample.geometry, dtype=torch.float64),
    )
    if sample.request is not None:
        target["repeat"] = sample.request.repeat
    if sample.originals is not None:
        target["orig_boxes"] = torch.from_numpy(sample.originals.boxes)
        target["orig_labels"] = torch.from_numpy(sample.originals.labels)
        target["orig_iscrowd"] = torch.from_numpy(sample.originals.iscrowd)
        target["orig_area"] = torch.from_numpy(sample.originals.area)
    return image, target
