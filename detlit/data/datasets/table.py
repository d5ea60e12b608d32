"""Annotations of a whole data set as flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnnotationTable", "ImageObjects", "offsets_of", "table_of"]


@dataclass(frozen=True)
class ImageObjects:
    """One image and its objects, as a file says: a row per object in the lists, boxes xyxy in pixels.

    ``size`` (height, width) is ``None`` where the file does not say.
    """

    file_name: str
    size: tuple[int, int] | None
    boxes: Sequence[Sequence[float]] = ()
    labels: Sequence[int] = ()
    iscrowd: Sequence[bool] = ()


@dataclass(frozen=True)
class AnnotationTable:
    """Images and their objects as flat arrays: worker processes share them, while lists of dicts would be copied.

    Attributes:
        image_ids: ``(I,)`` int64.
        file_names: ``(I,)`` str, from the folder of the images on.
        sizes: ``(I, 2)`` int64 (height, width); 0 where the file does not say.
        offsets: ``(I + 1,)`` int64: the objects of image i are the rows ``offsets[i]`` to ``offsets[i + 1]``.
        boxes: ``(M, 4)`` float64 xyxy pixels, as annotated.
        labels: ``(M,)`` int64.
        iscrowd: ``(M,)`` bool.
        areas: ``(M,)`` float64 square pixels.
        annotation_ids: ``(M,)`` str, for messages; ``(0,)`` where annotations have no ids.
    """

    image_ids: NDArray[np.int64]
    file_names: NDArray[np.str_]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    annotation_ids: NDArray[np.str_]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(I,)`` objects of each image."""
        return np.diff(self.offsets)

    def select(self, images: NDArray[np.int64]) -> "AnnotationTable":
        """Return the table of the images at these ascending positions."""
        kept = np.zeros(len(self), dtype=np.bool_)
        kept[images] = True
        table = self.select_objects(np.repeat(kept, self.counts))
        return replace(
            table,
            image_ids=self.image_ids[images],
            file_names=self.file_names[images],
            sizes=self.sizes[images],
            offsets=offsets_of(self.counts[images]),
        )

    def select_objects(self, rows: NDArray[np.bool_]) -> "AnnotationTable":
        """Return the table with all images, but only the objects ``(M,)`` that are marked."""
        image = np.repeat(np.arange(len(self)), self.counts)
        return replace(
            self,
            offsets=offsets_of(np.bincount(image[rows], minlength=len(self))),
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            iscrowd=self.iscrowd[rows],
            areas=self.areas[rows],
            annotation_ids=self.annotation_ids[rows] if len(self.annotation_ids) else self.annotation_ids,
        )

    def with_labels(self, labels: NDArray[np.int64]) -> "AnnotationTable":
        """Return the table with other labels ``(M,)``."""
        return replace(self, labels=labels)

    def with_boxes(self, boxes: NDArray[np.float64]) -> "AnnotationTable":
        """Return the table with other boxes ``(M, 4)``, and the areas of those."""
        return replace(self, boxes=boxes, areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))

    def with_areas(self, areas: NDArray[np.float64]) -> "AnnotationTable":
        """Return the table with other areas ``(M,)``."""
        return replace(self, areas=areas)

    def with_image_ids(self, image_ids: NDArray[np.int64]) -> "AnnotationTable":
        """Return the table with other image ids ``(I,)``."""
        return replace(self, image_ids=image_ids)

    def with_crowds(self, iscrowd: NDArray[np.bool_]) -> "AnnotationTable":
        """Return the table with other crowd flags ``(M,)``."""
        return replace(self, iscrowd=iscrowd)

    def name_of(self, row: int) -> str:
        """Return how messages call an object: by its id, or by its image and its place there, counted from 1."""
        if len(self.annotation_ids):
            return f"annotation {self.annotation_ids[row]}"
        image = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return f"object {row - self.offsets[image] + 1} of {self.file_names[image]}"

    def without_area(self) -> NDArray[np.bool_]:
        """Return ``(M,)`` whether a box has no area inside its image."""
        sizes = np.where(self.sizes > 0, self.sizes, np.inf).repeat(self.counts, axis=0)
        low, high = np.maximum(self.boxes[:, :2], 0), np.minimum(self.boxes[:, 2:], sizes[:, ::-1])
        return (high[:, 0] <= low[:, 0]) | (high[:, 1] <= low[:, 1])

    def repeated(self) -> NDArray[np.bool_]:
        """Return ``(M,)`` whether an earlier object of the image has the same class and box."""
        image = np.repeat(np.arange(len(self)), self.counts)
        first = np.unique(np.column_stack([image, self.labels, self.boxes]), axis=0, return_index=True)[1]
        repeated = np.ones(len(self.labels), dtype=np.bool_)
        repeated[first] = False
        return repeated


def table_of(images: Sequence[ImageObjects]) -> AnnotationTable:
    """Return a table of images numbered 0, 1, 2, ...; objects without ``iscrowd`` are none, areas are of the boxes."""
    boxes = np.array([box for image in images for box in image.boxes], dtype=np.float64).reshape(-1, 4)
    crowds = [crowd for image in images for crowd in image.iscrowd or [False] * len(image.labels)]
    return AnnotationTable(
        image_ids=np.arange(len(images)),
        file_names=np.array([image.file_name for image in images], dtype=np.str_),
        sizes=np.array([image.size or (0, 0) for image in images], dtype=np.int64).reshape(-1, 2),
        offsets=offsets_of(np.array([len(image.labels) for image in images], dtype=np.int64)),
        boxes=boxes,
        labels=np.array([label for image in images for label in image.labels], dtype=np.int64),
        iscrowd=np.array(crowds, dtype=np.bool_),
        areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        annotation_ids=np.array([], dtype=np.str_),
    )


def offsets_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``(I + 1,)`` where each image's objects begin, and where the last ones end."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
