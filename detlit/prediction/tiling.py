"""Large images in tiles, so that small objects stay large enough for the network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detlit.errors import ConfigurationError
from detlit.postprocess.nms import suppress_overlaps
from detlit.structures import Detection

__all__ = ["Tiles", "Window", "merge_tiles"]

Window = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of an image, in pixels."""


@dataclass(frozen=True)
class Tiles:
    """How images are cut into overlapping tiles, as in https://arxiv.org/abs/2202.06934.

    The tiles cover the image; the last of a row and of a column end at its border and overlap more. Images that one
    tile covers are not cut.

    Args:
        size: side of a tile in pixels of the image; each is fitted into the network input.
        overlap: share of a tile that the next one sees again, below 1; objects smaller than that are whole in one.
        whole: look at the whole image as well, for objects larger than a tile.
        nms_threshold: of two boxes of a class from different tiles with a larger IoU, the better one stays.

    Raises:
        ConfigurationError: a size below 32 pixels, or an overlap or threshold out of range.
    """

    size: int = 640
    overlap: float = 0.2
    whole: bool = True
    nms_threshold: float = 0.6

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.size < 32 or not 0 <= self.overlap < 1 or not 0 <= self.nms_threshold <= 1:
            raise ConfigurationError(
                f"tiles of {self.size} pixels with overlap {self.overlap} and nms_threshold {self.nms_threshold} "
                "cannot be: give at least 32 pixels, an overlap from 0 to below 1 and a threshold from 0 to 1."
            )

    def windows(self, height: int, width: int) -> list[Window]:
        """Return the parts of an image of ``height`` times ``width`` pixels to look at."""
        tiles = [
            (left, top, min(left + self.size, width), min(top + self.size, height))
            for top in self._starts(height)
            for left in self._starts(width)
        ]
        return [*tiles, (0, 0, width, height)] if self.whole and len(tiles) > 1 else tiles

    def _starts(self, length: int) -> list[int]:
        step = max(1, round(self.size * (1 - self.overlap)))
        last = max(0, length - self.size)
        return [*range(0, last, step), last]


def merge_tiles(
    detections: Sequence[Detection], windows: Sequence[Window], size: tuple[int, int], tiles: Tiles
) -> Detection:
    """Return the detections of an image from those in its windows, best first.

    A box that the border of a tile cuts is dropped if it is no larger than the overlap: a neighbour sees it whole.

    Args:
        detections: of each window, boxes in pixels of the window.
        windows: the parts of the image.
        size: (height, width) of the image.
        tiles: how it was cut.
    """
    boxes, scores, labels = [], [], []
    for detection, window in zip(detections, windows, strict=True):
        moved = detection["boxes"] + detection["boxes"].new_tensor([window[0], window[1], window[0], window[1]])
        whole = ~_is_cut(moved, window, size, tiles)
        boxes.append(moved[whole])
        scores.append(detection["scores"][whole])
        labels.append(detection["labels"][whole])
    all_scores, order = torch.cat(scores).sort(descending=True, stable=True)
    all_boxes, all_labels = torch.cat(boxes)[order], torch.cat(labels)[order]
    keep = suppress_overlaps(all_boxes, all_labels, tiles.nms_threshold)
    return Detection(boxes=all_boxes[keep], scores=all_scores[keep], labels=all_labels[keep])


def _is_cut(boxes: torch.Tensor, window: Window, size: tuple[int, int], tiles: Tiles) -> torch.Tensor:
    """Tell which boxes ``(K, 4)`` an inner border of the window cuts and a neighbour sees whole."""
    left, top, right, bottom = window
    overlap, margin = tiles.size * tiles.overlap, 1.0
    small_x = boxes[:, 2] - boxes[:, 0] < overlap - margin
    small_y = boxes[:, 3] - boxes[:, 1] < overlap - margin
    cut = torch.zeros_like(small_x)
    if left > 0:
        cut |= small_x & (boxes[:, 0] < left + margin)
    if right < size[1]:
        cut |= small_x & (boxes[:, 2] > right - margin)
    if top > 0:
        cut |= small_y & (boxes[:, 1] < top + margin)
    if bottom < size[0]:
        cut |= small_y & (boxes[:, 3] > bottom - margin)
    return cut
