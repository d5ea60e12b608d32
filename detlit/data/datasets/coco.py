"""Data sets in COCO's json format."""

import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detlit.data.datasets.base import DetectionDataset, GroundTruth
from detlit.data.datasets.coco_file import read_class_names, read_table
from detlit.data.datasets.coco_table import CocoTable
from detlit.data.images import read_image
from detlit.errors import DatasetError

__all__ = ["CocoDataset"]


class CocoDataset(DetectionDataset):
    """Images annotated in one COCO json file. Nothing is read before the first use.

    Categories become labels by name. A missing ``iscrowd`` is 0, a missing ``area`` that of the box, and images without
    annotations are background. A single warning tells what is odd but harmless.

    Args:
        annotations: the json file, relative to ``root``.
        images: the folder that the file names in it start from, relative to ``root``. Where there is no folder
            ``images/train2017``, ``train2017`` is tried, and the other way round.
        root: the folder of the data set; ``None`` is the working directory, or what the data module says.
        class_names: names of the labels in their order; ``None`` takes the declared categories in the order of their
            ids, used or not, or what the data module says.
        ignore_empty: leave out images without annotations.
        max_samples: keep only the first images, to try something out.

    Raises:
        DatasetError: on first use: a missing file or folder, no images, or classes that ``class_names`` lacks.
        AnnotationError: on first use: an annotation that cannot be understood.
        ImageReadError: from ``load_image``: a file that cannot be read or has another size than its annotations say.
    """

    def __init__(
        self,
        annotations: str,
        images: str = "",
        root: str | None = None,
        class_names: Sequence[str] | None = None,
        ignore_empty: bool = False,
        max_samples: int | None = None,
    ) -> None:
        self.annotations = annotations
        self.images = images
        self.root = root
        self.ignore_empty = ignore_empty
        self.max_samples = max_samples
        self._class_names = None if class_names is None else tuple(class_names)
        self._table: CocoTable | None = None
        self._image_folder = Path()

    @property
    def annotation_path(self) -> Path:
        """The json file."""
        return Path(self.root or "", self.annotations)

    @property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Names of the labels; reads the file's categories where none were given."""
        if self._class_names is None:
            self._class_names = read_class_names(self.annotation_path)
        return self._class_names

    def use_class_names(self, names: Sequence[str]) -> None:
        """Label categories by the position of their name in ``names``; annotated ones must be among them."""
        self._class_names = tuple(names)
        self._table = None

    def setup(self) -> None:
        """Read the annotation file, check it, and see that the images are there."""
        self._ready()

    def _ready(self) -> CocoTable:
        """Return the annotations, read on first use."""
        if self._table is None:
            self._table = self._read()
        return self._table

    def _read(self) -> CocoTable:
        table = read_table(self.annotation_path, self.class_names)
        chosen = np.flatnonzero(table.counts > 0) if self.ignore_empty else np.arange(len(table))
        table = table.select(chosen[: self.max_samples])
        if not len(table):
            raise DatasetError(f"{self.annotation_path} leaves no images: check ignore_empty and max_samples.")
        self._image_folder = self._find_image_folder()
        _check_files(self._image_folder, table.file_names.tolist())
        _warn_about(table, self.annotation_path)
        return table

    def _find_image_folder(self) -> Path:
        """Return the folder of the images, as given or with ``images/`` added or left out."""
        given = Path(self.root or "", self.images)
        parts = Path(self.images).parts
        other = Path(*parts[1:]) if parts[:1] == ("images",) else Path("images", self.images)
        for folder in (given, Path(self.root or "", other)):
            if folder.is_dir():
                return folder
        raise DatasetError(f"there is no image folder {given}: check data.root and the data set's 'images'.")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._ready())

    def load_image(self, index: int) -> NDArray[np.uint8]:
        """Return image number ``index`` as ``(H, W, 3)`` uint8 RGB; see :func:`~detlit.data.images.read_image`."""
        table = self._ready()
        height, width = table.sizes[index].tolist()
        return read_image(self._image_folder / table.file_names[index], (height, width) if height and width else None)

    def load_target(self, index: int) -> GroundTruth:
        """Return what is annotated in image number ``index``."""
        table = self._ready()
        rows = slice(table.offsets[index], table.offsets[index + 1])
        return GroundTruth(
            boxes=table.boxes[rows],
            labels=table.labels[rows],
            iscrowd=table.iscrowd[rows],
            area=table.areas[rows],
            image_id=int(table.image_ids[index]),
            path=str(self._image_folder / table.file_names[index]),
        )


def _check_files(folder: Path, file_names: Sequence[str]) -> None:
    """Raise an error if files are missing, by listing each folder once: a look at every file is slow on networks."""
    names_in: dict[str, list[str]] = defaultdict(list)
    for file_name in file_names:
        parent, name = os.path.split(os.path.join(folder, file_name))  # noqa: PTH118 - pathlib is slow for 100,000 files
        names_in[parent].append(name)
    missing = []
    for parent, names in names_in.items():
        present = set(os.listdir(parent)) if os.path.isdir(parent) else set()  # noqa: PTH112, PTH208
        missing += [f"{parent}/{name}" for name in names if name not in present]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(file_names)} images are missing, the first is {missing[0]}: check the data set's "
            "'images' folder, or remove them from the annotation file."
        )


def _warn_about(table: CocoTable, path: Path) -> None:
    """Tell once what will be left out of training or looks like a mistake."""
    findings = {
        "without area in the image, left out of training but evaluated": table.without_area(),
        "that repeat another": table.repeated(),
    }
    parts = [_describe(table, rows, what) for what, rows in findings.items() if rows.any()]
    if parts:
        warnings.warn(f"{path} has {' and '.join(parts)}.", stacklevel=2)


def _describe(table: CocoTable, rows: NDArray[np.bool_], what: str) -> str:
    ids = table.annotation_ids[rows][:3].tolist()
    boxes = "box" if rows.sum() == 1 else "boxes"
    return f"{rows.sum()} {boxes} {what} (annotation {', '.join(ids)}{', ...' if rows.sum() > 3 else ''})"
