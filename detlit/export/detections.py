"""From the outputs of an exported file to detections."""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.export.suppression import NMSFormat
from detlit.structures import Detection

__all__ = ["read_detections"]


def read_detections(outputs: Mapping[str, NDArray[Any]], nms: NMSFormat, count: int) -> list[Detection]:
    """Return the detections of each image from a file that holds its suppression.

    Args:
        outputs: by name, see :class:`~detlit.export.suppression.SuppressedDetector`.
        nms: ``"flat"`` or ``"batch"``.
        count: number of images.
    """
    tensors = {name: torch.from_numpy(value) for name, value in outputs.items()}
    return _flat(tensors["detections"], count) if nms == "flat" else _batch(tensors, count)


def _flat(rows: Tensor, count: int) -> list[Detection]:
    found = [rows[rows[:, 0] == image] for image in range(count)]
    return [Detection(boxes=each[:, 1:5], scores=each[:, 5], labels=each[:, 6].long()) for each in found]


def _batch(outputs: Mapping[str, Tensor], count: int) -> list[Detection]:
    numbers = outputs["num_detections"].flatten().tolist()[:count]
    return [
        Detection(
            boxes=outputs["boxes"][image, :number],
            scores=outputs["scores"][image, :number],
            labels=outputs["labels"][image, :number].long(),
        )
        for image, number in enumerate(numbers)
    ]
