"""What all readers share: which classes and images are kept, and what is said about odd annotations."""

import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detlit.data.datasets.base import DetectionDataset
from detlit.data.datasets.files import missing_files
from detlit.data.datasets.table import AnnotationTable
from detlit.data.datasets.truth import REVERSED_HINT, GroundTruth, refuse_normalised, reversed_boxes
from detlit.data.images import image_size, read_image
from detlit.errors import ConfigurationError, DatasetError, abridged

__all__ = ["AnnotatedDataset", "Classes", "select_classes"]

Classes = Sequence[str] | Mapping[str, str]
"""Classes to keep, in this order; a mapping also renames them, and merges those that get the same name."""


_FAR, _MANY, _FEW = 0.1, 0.1, 10
"""Boxes are doubted where more than this share of them reach out of their images by more than this share of a side, and
there are at least so many of them."""


class AnnotatedDataset(DetectionDataset):
    """A data set whose annotations fit into one table; a reader says how to fill it. Nothing is read before first use.

    Args:
        class_names: names of the labels in their order; ``None`` takes what the files declare. An annotated class that
            is missing here is an error.
        classes: the classes to keep, in this order; objects of others are left out. A mapping renames too:
            ``{car: vehicle, bus: vehicle, dog: dog}``.
        ignore_empty: leave out images without annotations.
        max_samples: keep only the first images, to try something out.

    Raises:
        ConfigurationError: ``max_samples`` below 1, no ``classes``, or one of them twice.
    """

    def __init__(
        self,
        class_names: Sequence[str] | None = None,
        classes: Classes | None = None,
        ignore_empty: bool = False,
        max_samples: int | None = None,
    ) -> None:
        if max_samples is not None and max_samples < 1:
            raise ConfigurationError(f"max_samples={max_samples} keeps no images: set it to 1 or more, or omit it.")
        if classes is not None and (not classes or isinstance(classes, str) or len(set(classes)) < len(classes)):
            raise ConfigurationError(f"classes={classes!r} must name classes, each once: correct the list.")
        self.classes = classes
        self.ignore_empty = ignore_empty
        self.max_samples = max_samples
        self._class_names = None if class_names is None else tuple(class_names)
        self._table: AnnotationTable | None = None
        self._image_folder = Path()
        self._positions: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    # ------------------------------------------------------------------------------------ what a reader says
    @property
    @abstractmethod
    def source(self) -> str:
        """How messages call the annotations: their file or folder."""

    @abstractmethod
    def read_class_names(self) -> tuple[str, ...]:
        """Return the classes that the files declare."""

    @abstractmethod
    def read_table(self) -> AnnotationTable:
        """Return all images and objects; labels are positions in :meth:`read_class_names`."""

    @abstractmethod
    def find_image_folder(self) -> Path:
        """Return the folder that the table's file names start from."""

    # -------------------------------------------------------------------------------------- classes and images
    @property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Names of the labels; read from the files where none were given."""
        if self._class_names is None:
            declared = self.read_class_names()
            renamed = select_classes(declared, self.classes, self.source)
            self._class_names = tuple(dict.fromkeys(renamed.values()))
        return self._class_names

    @property
    def known_class_names(self) -> tuple[str, ...] | None:
        """Names of the labels if they were given or have been read already; nothing is read for this."""
        return self._class_names

    def use_class_names(self, names: Sequence[str]) -> None:
        """Label objects by the position of their class in ``names``; annotated classes must be among them."""
        self._class_names = tuple(names)
        self._table = None

    def object_counts(self) -> NDArray[np.int64]:
        """Return ``(num_classes,)`` objects of each class."""
        return np.bincount(self.table.labels, minlength=len(self.class_names))

    def setup(self) -> None:
        """Read the annotations, check them, and see that the images are there."""
        self.table  # noqa: B018 - read on first use

    @property
    def table(self) -> AnnotationTable:
        """The images and objects that are kept, read on first use."""
        if self._table is None:
            self._table = self._read()
        return self._table

    def _read(self) -> AnnotationTable:
        declared = self.read_class_names()
        table = self._relabel(self.read_table(), declared)
        chosen = np.flatnonzero(table.counts > 0) if self.ignore_empty else np.arange(len(table))
        self._positions = chosen[: self.max_samples]
        table = table.select(self._positions)
        if not len(table):
            raise DatasetError(f"{self.source} leaves no images: check ignore_empty and classes.")
        self._image_folder = self.find_image_folder()
        self._check_images(table)
        refuse_normalised(table.boxes, self.source)
        _warn_about(table, self.source, may_be_xywh=getattr(self, "box_format", None) == "xyxy")
        self._told_of_reversed = True
        return table

    def _relabel(self, table: AnnotationTable, declared: Sequence[str]) -> AnnotationTable:
        """Return the table with the labels of the run, and without the objects of classes that are not kept."""
        names = list(self.class_names)
        renamed = select_classes(declared, self.classes, self.source)
        left_out, unknown = -1, -2
        labels = [
            (names.index(renamed[name]) if renamed[name] in names else unknown) if name in renamed else left_out
            for name in declared
        ]
        relabelled = table.with_labels(np.array(labels, dtype=np.int64)[table.labels])
        lost = np.flatnonzero(relabelled.labels == unknown)
        if len(lost):
            raise DatasetError(
                f"{self.source} annotates class {renamed[declared[table.labels[lost[0]]]]!r}, but the classes of this "
                f"run are {abridged(names)}: correct the name, add it to data.class_names, or, where a checkpoint "
                "says the classes, choose the data it was trained on, or another checkpoint."
            )
        return relabelled if (relabelled.labels >= 0).all() else relabelled.select_objects(relabelled.labels >= 0)

    def _check_images(self, table: AnnotationTable) -> None:
        """Raise an error if image files are missing."""
        self._check_files([os.path.join(self._image_folder, name) for name in table.file_names.tolist()])  # noqa: PTH118

    def _check_files(self, paths: Sequence[str]) -> None:
        missing = missing_files(paths)
        if missing:
            raise DatasetError(
                f"{len(missing)} of {len(paths)} images are missing, the first is {missing[0]}: check the data set's "
                "'images' folder, or remove them from the annotation file."
            )

    # ---------------------------------------------------------------------------------------------- one image
    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.table)

    def position(self, index: int) -> int:
        """Return where image number ``index`` is in :meth:`read_table`, which holds those that are not kept too."""
        self.setup()
        return int(self._positions[index])

    def image_path(self, index: int) -> Path | None:
        """Return the file of image number ``index``, ``None`` where it is none."""
        return Path(self._place(index))

    def _place(self, index: int) -> str:
        """Return how messages call image number ``index``: its path, where it is a file."""
        name = str(self.table.file_names[index])
        return os.path.join(self._image_folder, name)  # noqa: PTH118

    def load_image(self, index: int) -> NDArray[np.uint8]:
        """Return image number ``index`` as ``(H, W, 3)`` uint8 RGB; see :func:`~detlit.data.images.read_image`."""
        return read_image(self._place(index), self._annotated_size(index))

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image number ``index``, mostly without decoding it."""
        return image_size(self._place(index), self._annotated_size(index))

    def _annotated_size(self, index: int) -> tuple[int, int] | None:
        height, width = self.table.sizes[index].tolist()
        return (height, width) if height and width else None

    def load_target(self, index: int) -> GroundTruth:
        """Return what is annotated in image number ``index``."""
        table = self.table
        rows = slice(table.offsets[index], table.offsets[index + 1])
        return GroundTruth(
            boxes=table.boxes[rows],
            labels=table.labels[rows],
            iscrowd=table.iscrowd[rows],
            area=table.areas[rows],
            image_id=int(table.image_ids[index]),
            path=self._place(index),
        )


def select_classes(declared: Sequence[str], classes: Classes | None, source: str) -> dict[str, str]:
    """Return the new name of each class that is kept, in the order asked for.

    Args:
        declared: the classes there are.
        classes: those to keep; ``None`` for all.
        source: where they are declared, for the message.

    Raises:
        DatasetError: a class to keep is not declared.
    """
    if classes is None:
        return {name: name for name in declared}
    renamed = dict(classes) if isinstance(classes, Mapping) else {name: name for name in classes}
    unknown = [name for name in renamed if name not in declared]
    if unknown:
        raise DatasetError(f"classes asks for {unknown[0]!r}, but {source} has {abridged(declared)}: correct the name.")
    return renamed


def _warn_about(table: AnnotationTable, source: str, may_be_xywh: bool) -> None:
    """Tell once what will be left out of training or looks like a mistake."""
    beyond = _far_outside(table)
    share = beyond.sum() / max(1, len(beyond))
    findings = {
        "without area in the image, left out of training but evaluated": table.without_area(),
        "that repeat another": table.repeated(),
        f"that reach far out of their images, {share:.0%} of all": beyond,
    }
    parts = [_describe(table, rows, what) for what, rows in findings.items() if rows.any()]
    wrong = int(reversed_boxes(table.boxes).sum()) if may_be_xywh else 0
    hint = f"; {wrong} of them end before they begin: {REVERSED_HINT}" if wrong else ""
    if beyond.any():
        hint += (
            "; corners may stand where sizes belong, or images were resized without their boxes: run detlit check-data"
        )
    if parts:
        warnings.warn(f"{source} has {' and '.join(parts)}{hint}.", stacklevel=2)


def _far_outside(table: AnnotationTable) -> NDArray[np.bool_]:
    """Return ``(M,)`` which boxes reach far out of their images, none if it may be sloppiness."""
    sizes = table.sizes[:, ::-1].repeat(table.counts, axis=0)
    beyond = np.maximum(-table.boxes[:, :2], table.boxes[:, 2:] - sizes) > _FAR * sizes
    rows: NDArray[np.bool_] = np.logical_and((sizes > 0).all(axis=1), beyond.any(axis=1))
    return rows if len(rows) >= _FEW and rows.mean() > _MANY else np.zeros_like(rows)


def _describe(table: AnnotationTable, rows: NDArray[np.bool_], what: str) -> str:
    names = [table.name_of(row) for row in np.flatnonzero(rows)[:3].tolist()]
    same = names[0].split()[0] + " "
    shown = ", ".join([names[0], *(name.removeprefix(same) for name in names[1:])])
    boxes = "box" if rows.sum() == 1 else "boxes"
    return f"{rows.sum()} {boxes} {what} ({shown}{', ...' if rows.sum() > 3 else ''})"
