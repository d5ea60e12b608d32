"""Several samples on one canvas."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import Sample, clip_boxes
from detlit.data.transforms.warp import draw_image, visible_boxes, warp_boxes
from detlit.structures import Preprocessing

__all__ = ["Region", "draw_samples", "region_of"]

Region = tuple[slice, slice]
"""Rows and columns of a canvas."""


def region_of(tiles: Sequence[tuple[Sample, NDArray[np.float64]]], preprocessing: Preprocessing) -> Region:
    """Return the part of the canvas around all that the images, each with its map ``(3, 3)``, cover."""
    around = [
        warp_boxes(np.array([[0.0, 0.0, tile.image.shape[1], tile.image.shape[0]]]), matrix)[0]
        for tile, matrix in tiles
    ]
    corners = np.concatenate([np.min(around, axis=0)[:2], np.max(around, axis=0)[2:]])
    left, top, right, bottom = clip_boxes(np.rint(corners)[None], *preprocessing.size)[0].astype(int).tolist()
    return slice(top, bottom), slice(left, right)


def draw_samples(tiles: Sequence[tuple[Sample, NDArray[np.float64]]], preprocessing: Preprocessing) -> Sample:
    """Return one sample with all the images drawn onto a canvas, each by its map ``(3, 3)``, and their objects."""
    height, width = preprocessing.size
    canvas = np.full((height, width, 3), preprocessing.pad_value, dtype=np.uint8)
    boxes, labels, iscrowd = [], [], []
    for tile, matrix in tiles:
        drawn = draw_image(canvas, tile.image, matrix)
        on_canvas, kept = visible_boxes(warp_boxes(tile.boxes, drawn), height, width)
        boxes.append(on_canvas[kept])
        labels.append(tile.labels[kept])
        iscrowd.append(tile.iscrowd[kept])
    return replace(
        tiles[0][0],
        image=canvas,
        boxes=np.concatenate(boxes),
        labels=np.concatenate(labels),
        iscrowd=np.concatenate(iscrowd),
        orig_size=(height, width),
        geometry=(1.0, 1.0, 0.0, 0.0),
        originals=None,
    )
