"""What a data set says, collected as flat arrays that may hold faults, with a list of what could not be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Problem", "Records", "Split"]


@dataclass(frozen=True)
class Problem:
    """Something that could not be read.

    Attributes:
        code: kind of fault, a key of :data:`~detlit.data.check.kinds.KINDS`.
        place: where: an annotation id, a file, or a file and a line.
        text: what is wrong there, empty if the kind says it all.
        image: file name of the image it belongs to, if known.
    """

    code: str
    place: str
    text: str = ""
    image: str = ""


@dataclass(frozen=True)
class Split:
    """One split. Objects that could not be read are ``problems``; others are here as annotated, whatever they say.

    Attributes:
        name: "train", "val", "test" or another.
        source: the annotation file or folder.
        format: "coco", "yolo", "voc", or the class of a data set.
        class_names: the declared classes.
        class_ids: their ids in the file, empty where there are none.
        images: file names of the images, as annotated.
        paths: where they are; empty if the images are in no files.
        sizes: ``(I, 2)`` int64 annotated (height, width); 0 where nothing says.
        image: ``(M,)`` int64 position of each object's image.
        labels: ``(M,)`` int64 position of each object's class in ``class_names``.
        boxes: ``(M, 4)`` float64 xyxy pixels, NaN and all.
        iscrowd: ``(M,)`` bool.
        sources: ``(M,)`` what messages call an object: an annotation id, or a file and line.
        problems: what could not be read.
        image_rows: ``(I,)`` the entries of the images in a COCO file.
        rows: ``(M,)`` the entries of the objects in a COCO file.
        unlisted: paths of image files beside the listed ones that the annotations of this split do not mention.
        load_image: returns the image at a position, for images in no files.
    """

    name: str
    source: str
    format: str
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    images: Sequence[str]
    paths: Sequence[str]
    sizes: NDArray[np.int64]
    image: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]
    sources: Sequence[str]
    problems: list[Problem] = field(default_factory=list)
    image_rows: list[dict[str, Any]] | None = None
    rows: list[dict[str, Any]] | None = None
    unlisted: tuple[str, ...] = ()
    load_image: Callable[[int], NDArray[np.uint8]] | None = None


class Records:
    """All splits as one table.

    Args:
        splits: the splits, in the order in which they are reported.
        class_names: the classes of the run; those that a split declares beyond them are added at the end.

    Attributes:
        class_names: all classes.
        num_declared: how many of them the run has; the others are mistakes of a split.
        image_split: ``(I,)`` position of each image's split.
        images: ``(I,)`` file names; with ``paths`` and ``sizes`` as in :class:`Split`.
        image: ``(M,)`` position of each object's image among all images; with the other columns of :class:`Split`.
        labels: ``(M,)`` positions in ``class_names``.
    """

    def __init__(self, splits: Sequence[Split], class_names: Sequence[str] | None = None) -> None:
        self.splits = tuple(splits)
        names = dict.fromkeys(self.splits[0].class_names if class_names is None else class_names)
        self.num_declared = len(names)
        self.class_names = tuple(dict.fromkeys([*names, *(name for split in splits for name in split.class_names)]))
        lengths = [len(split.images) for split in splits]
        self.first_image = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.image_split = np.repeat(np.arange(len(splits)), lengths)
        self.images = [name for split in splits for name in split.images]
        self.paths = [path for split in splits for path in (split.paths or [""] * len(split.images))]
        self.sizes = np.concatenate([split.sizes.reshape(-1, 2) for split in splits])
        self.image = np.concatenate(
            [split.image + start for split, start in zip(splits, self.first_image, strict=False)]
        ).astype(np.int64)
        self.labels = np.concatenate([self._own_labels(split)[split.labels] for split in splits])
        self.boxes = np.concatenate([split.boxes.reshape(-1, 4) for split in splits])
        self.iscrowd = np.concatenate([split.iscrowd for split in splits])
        self.sources = [source for split in splits for source in split.sources]

    def _own_labels(self, split: Split) -> NDArray[np.int64]:
        """Return the position in ``class_names`` of each class of a split."""
        position = {name: label for label, name in enumerate(self.class_names)}
        return np.array([position[name] for name in split.class_names], dtype=np.int64)

    @cached_property
    def split(self) -> NDArray[np.int64]:
        """``(M,)`` position of each object's split."""
        return self.image_split[self.image]

    @cached_property
    def first_object(self) -> NDArray[np.int64]:
        """``(S + 1,)`` where the objects of each split begin, and where the last ones end."""
        lengths = [len(split.labels) for split in self.splits]
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    @property
    def num_images(self) -> int:
        """Number of images of all splits."""
        return len(self.images)

    def image_name(self, position: int) -> str:
        """Return the file name of an image, with its split where it does not say that: ``val/1.jpg``."""
        name = self.images[position]
        split = self.splits[self.image_split[position]].name
        return name if split in name.split("/") else f"{split}/{name}"

    def object_name(self, row: int) -> str:
        """Return where an object is annotated: ``annotation 887 (val/1.jpg)``."""
        return f"{self.sources[row]} ({self.image_name(int(self.image[row]))})"
