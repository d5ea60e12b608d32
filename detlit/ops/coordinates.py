"""Between network input pixels and the pixels of the original image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detlit.structures import Detection

__all__ = ["to_original_pixels"]


def to_original_pixels(
    detections: Sequence[Detection], geometry: Tensor, orig_sizes: Sequence[tuple[int, int]]
) -> list[Detection]:
    """Map detections back into the image files they came from, and clip them there.

    Args:
        detections: one per image, ``boxes (K, 4)`` in network pixels.
        geometry: ``(B, 4)`` scale_x, scale_y, left, top with ``network = original * scale + offset``.
        orig_sizes: (height, width) of each image file.

    Returns:
        The detections with ``boxes (K, 4)`` float32 in original pixels, within ``[0, width]`` and ``[0, height]``.
    """
    mapped: list[Detection] = []
    for detection, (scale_x, scale_y, left, top), (height, width) in zip(
        detections, geometry.tolist(), orig_sizes, strict=True
    ):
        boxes = detection["boxes"].float()
        offset, scale = boxes.new_tensor([left, top, left, top]), boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        limit = boxes.new_tensor([width, height, width, height])
        boxes = torch.minimum(((boxes - offset) / scale).clamp(min=0), limit)
        mapped.append(Detection(boxes=boxes, scores=detection["scores"], labels=detection["labels"]))
    return mapped
