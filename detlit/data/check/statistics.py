"""What a data set holds, and the settings that follow from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.data.check.boxes import network_sides
from detlit.data.check.records import Records
from detlit.structures import Preprocessing

__all__ = ["Statistics", "Suggestion", "measure"]

SIZES = (320, 416, 512, 640, 768, 896, 1024, 1280)
"""Input sizes to choose from, multiples of 32 pixels."""

WANTED_SIDE, WANTED_SHARE = 16.0, 0.95
"""Pixels, two cells of the finest feature map, that this share of objects should be high and wide in the input."""

STEPS, LARGEST_BATCH = 20, 16
"""Fewest steps of an epoch, unless the batch would be less than 4, and the largest batch at 640x640."""


@dataclass(frozen=True)
class Suggestion:
    """Settings to begin with.

    Attributes:
        image_size: side of the network input in pixels.
        batch_size: training images per step.
        reasons: why, one sentence each.
    """

    image_size: int
    batch_size: int
    reasons: tuple[str, str]


@dataclass(frozen=True)
class Statistics:
    """Counts and measures.

    Attributes:
        images: ``(S,)`` of each split.
        empty: ``(S,)`` images without objects.
        objects: ``(S, C)`` of each split and class, crowds included.
        crowds: ``(S,)`` crowd annotations.
        per_image: ``(I,)`` objects of each image.
        sides: ``(K,)`` square roots of the areas of boxes, in network input pixels, where these are known.
        short_sides: ``(K,)`` their shorter sides.
        aspects: ``(K,)`` width over height.
        image_sizes: the most frequent annotated (height, width) with their counts.
        suggestion: settings that suit.
    """

    images: NDArray[np.int64]
    empty: NDArray[np.int64]
    objects: NDArray[np.int64]
    crowds: NDArray[np.int64]
    per_image: NDArray[np.int64]
    sides: NDArray[np.float64]
    short_sides: NDArray[np.float64]
    aspects: NDArray[np.float64]
    image_sizes: list[tuple[tuple[int, int], int]]
    suggestion: Suggestion

    def to_dict(self, records: Records) -> dict[str, Any]:
        """Return plain data for ``report.json``."""
        return {
            "splits": {
                split.name: {
                    "source": split.source,
                    "format": split.format,
                    "images": int(self.images[number]),
                    "images_without_objects": int(self.empty[number]),
                    "objects": int(self.objects[number].sum()),
                    "crowds": int(self.crowds[number]),
                    "objects_per_class": dict(zip(records.class_names, self.objects[number].tolist(), strict=True)),
                }
                for number, split in enumerate(records.splits)
            },
            "image_sizes": [
                {"width": width, "height": height, "images": count} for (height, width), count in self.image_sizes
            ],
            "suggested": {
                "image_size": self.suggestion.image_size,
                "batch_size": self.suggestion.batch_size,
                "reasons": list(self.suggestion.reasons),
            },
        }


def measure(records: Records, preprocessing: Preprocessing) -> Statistics:
    """Return the statistics of a table.

    Args:
        records: the table.
        preprocessing: how images become network input.
    """
    num_splits, num_classes = len(records.splits), len(records.class_names)
    cells = np.bincount(records.split * num_classes + records.labels, minlength=num_splits * num_classes)
    per_image = np.bincount(records.image, minlength=records.num_images)
    sides, known = network_sides(records, preprocessing)
    sides = sides[known & ~records.iscrowd]
    boxes = records.boxes[known & ~records.iscrowd]
    sizes, counts = np.unique(records.sizes[(records.sizes > 0).all(axis=1)], axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    images = np.bincount(records.image_split, minlength=num_splits)
    return Statistics(
        images=images,
        empty=np.bincount(records.image_split[per_image == 0], minlength=num_splits),
        objects=cells.reshape(num_splits, num_classes),
        crowds=np.bincount(records.split[records.iscrowd], minlength=num_splits),
        per_image=per_image,
        sides=np.sqrt(sides.prod(axis=1)),
        short_sides=sides.min(axis=1, initial=np.inf),
        aspects=(boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1]),
        image_sizes=[((int(sizes[i, 0]), int(sizes[i, 1])), int(counts[i])) for i in order.tolist()],
        suggestion=_suggest(records, int(images[_training_split(records)])),
    )


def _training_split(records: Records) -> int:
    names = [split.name for split in records.splits]
    return names.index("train") if "train" in names else 0


def _suggest(records: Records, train_images: int) -> Suggestion:
    """Return the least input that keeps most objects visible, and a batch that leaves enough steps in an epoch."""
    image_size, reason = _suggest_size(records)
    fitting = LARGEST_BATCH * (640 / image_size) ** 2
    enough_steps = max(4.0, train_images / STEPS)
    batch_size = 2 ** int(np.log2(max(1.0, min(fitting, enough_steps, 64.0))))
    steps = max(1, train_images // batch_size)
    return Suggestion(
        image_size,
        batch_size,
        (reason, f"{train_images} training images make {steps} steps of {batch_size} an epoch"),
    )


def _suggest_size(records: Records) -> tuple[int, str]:
    largest = int(records.sizes.max(initial=0))
    sizes = [size for size in SIZES if size < largest + 32] or [SIZES[0]]
    for size in sizes:
        sides, known = network_sides(records, Preprocessing(size=(size, size)))
        short = sides[known & ~records.iscrowd].min(axis=1, initial=np.inf)
        share = float((short >= WANTED_SIDE).mean()) if len(short) else 1.0
        if share >= WANTED_SHARE:
            break
    if not len(short):
        return 640, "no object is of known size, so this is the usual one"
    reason = f"{share:.0%} of the objects are at least {WANTED_SIDE:g} pixels high and wide at {size}x{size}"
    return size, reason if share >= WANTED_SHARE else f"{reason}, and the images are hardly larger"
