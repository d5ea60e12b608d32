"""Data sets from lists that a script already has."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detlit.data.datasets.annotated import AnnotatedDataset, Classes
from detlit.data.datasets.box_formats import BoxFormat, check_box_format, to_xyxy
from detlit.data.datasets.labels import label_numbers
from detlit.data.datasets.table import AnnotationTable, ImageObjects, table_of
from detlit.data.images import image_size, read_image, to_rgb8
from detlit.errors import AnnotationError, ConfigurationError
from detlit.spec import plain

__all__ = ["ListDataset"]

ListSample = tuple[str | os.PathLike[str] | NDArray[Any], ArrayLike, Sequence[int] | Sequence[str] | NDArray[Any]]
"""An image or its path, its boxes, and their labels: numbers from 0, or names."""


class ListDataset(AnnotatedDataset):
    """Anyone's list of (image or path, boxes, labels).

    Names or numbers are labels::

        ListDataset([("1.jpg", [[10, 20, 50, 60]], ["cat"]), (array, [], [])], class_names=["cat", "dog"])

    The annotations are copied into arrays, which worker processes share; images are read when they are needed.

    Args:
        samples: one (image, boxes, labels) per image. An image is a path, relative to ``root``, or an array, RGB or
            grey, ``(H, W, 3)``, ``(H, W, 4)`` or ``(H, W)``, of 8 or 16 bits; boxes are ``(N, 4)``; labels are numbers
            from 0, or names.
        class_names: names of the labels in their order.
        box_format: ``"xyxy"``, ``"xywh"`` (COCO) or ``"cxcywh"`` (YOLO).
        normalized: boxes are fractions of the image's width and height instead of pixels.
        root: the folder that paths start from.
        classes: the classes to keep, in this order; objects of others are left out. A mapping renames too:
            ``{"car": "vehicle", "bus": "vehicle", "dog": "dog"}``.
        ignore_empty: leave out images without objects.
        max_samples: keep only the first images, to try something out.

    Raises:
        ConfigurationError: an unknown ``box_format``, or no samples.
        AnnotationError: boxes or labels that cannot be.
        ImageReadError: with ``normalized``, an image that cannot be read.
    """

    def __init__(
        self,
        samples: Sequence[ListSample],
        class_names: Sequence[str],
        box_format: BoxFormat = "xyxy",
        normalized: bool = False,
        root: str | None = None,
        classes: Classes | None = None,
        ignore_empty: bool = False,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(None, classes, ignore_empty, max_samples)
        check_box_format(box_format)
        if len(samples) == 0:
            raise ConfigurationError("samples is empty: give a list of (image, boxes, labels).")
        self.box_format: BoxFormat = box_format
        self.root = root
        self._declared = tuple(class_names)
        # Not the samples themselves: a copy of them as plain data would be large, and go to every worker.
        self.__dict__["_init_arguments"]["samples"] = plain(iter(()))
        self._images = [_image_of(sample, index) for index, sample in enumerate(samples)]
        label_of = {name: label for label, name in enumerate(self._declared)}
        rows = []
        for index, (image, (_, boxes, labels)) in enumerate(zip(self._images, samples, strict=True)):
            name, where = f"samples[{index}]", f"samples[{index}]"
            if isinstance(image, str):
                name, where = image, f"{where} ({image})"
            size = self._size_of(index) if normalized else None
            array = to_xyxy(boxes, box_format, size, where)
            numbers = label_numbers(labels, label_of, where)
            if len(numbers) != len(array):
                raise AnnotationError(f"{where} has {len(array)} boxes but {len(numbers)} labels: give one per box.")
            rows.append(ImageObjects(name, size, array.tolist(), numbers))
        self._all = table_of(rows)

    @property
    def source(self) -> str:
        """How messages call the list."""
        return "the list of samples"

    def read_class_names(self) -> tuple[str, ...]:
        """Return the names given."""
        return self._declared

    def read_table(self) -> AnnotationTable:
        """Return all samples."""
        return self._all

    def find_image_folder(self) -> Path:
        """Return the folder that paths start from."""
        return Path(self.root or "")

    def _check_images(self, table: AnnotationTable) -> None:
        files = [image for image in map(self._images.__getitem__, table.image_ids.tolist()) if isinstance(image, str)]
        self._check_files([str(self.find_image_folder() / file) for file in files])

    def _place(self, index: int) -> str:
        path = self.image_path(index)
        return str(self.table.file_names[index]) if path is None else str(path)

    def image_path(self, index: int) -> Path | None:
        """Return the file of image number ``index``, ``None`` for an array."""
        image = self._images[self.position(index)]
        return self.find_image_folder() / image if isinstance(image, str) else None

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image number ``index``, mostly without decoding it."""
        return self._size_of(self.position(index))

    def load_image(self, index: int) -> NDArray[np.uint8]:
        """Return image number ``index`` as ``(H, W, 3)`` uint8 RGB."""
        image = self._images[self.position(index)]
        if isinstance(image, str):
            return read_image(self.find_image_folder() / image)
        return to_rgb8(image, self._place(index))

    def _size_of(self, position: int) -> tuple[int, int]:
        """Return (height, width) of the image at a position in the list given."""
        image = self._images[position]
        if isinstance(image, str):
            return image_size(self.find_image_folder() / image)
        height, width = image.shape[:2]
        return height, width


def _image_of(sample: ListSample, index: int) -> str | NDArray[Any]:
    """Return the path or the array of a sample.

    Raises:
        AnnotationError: the sample is not of three parts, or its image is neither.
    """
    if not isinstance(sample, (tuple, list)) or len(sample) != 3:
        raise AnnotationError(f"samples[{index}] is not (image, boxes, labels): give all three, [] for no objects.")
    image = sample[0]
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    shown = repr(image) if image is None or isinstance(image, (int, float)) else f"a {type(image).__name__}"
    raise AnnotationError(f"samples[{index}] has {shown} for an image: give a path or an array (H, W, 3), RGB.")
