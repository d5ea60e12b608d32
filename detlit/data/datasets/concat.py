"""Several data sets as one."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detlit.data.datasets.annotated import AnnotatedDataset
from detlit.data.datasets.base import DetectionDataset
from detlit.data.datasets.truth import GroundTruth, whole_labels
from detlit.errors import AnnotationError, ConfigurationError, DatasetError

__all__ = ["ConcatDataset"]


class ConcatDataset(DetectionDataset):
    """Several data sets one after another, of any format, their labels joined by the names of the classes.

    Each part may keep and rename classes on its own (its argument ``classes``): a class is the same in all parts that
    call it the same. Image ids may repeat across parts; ``dataset_index`` counts through. The parts given are not
    changed.

    Args:
        datasets: the parts.
        class_names: names of the labels in their order; ``None`` takes those of the first part, then what the next ones
            add, or what the data module says.

    Raises:
        ConfigurationError: no parts.
        DatasetError: on first use: a part cannot be read, or has a class that ``class_names`` lacks.
    """

    def __init__(self, datasets: Sequence[DetectionDataset], class_names: Sequence[str] | None = None) -> None:
        if not datasets:
            raise ConfigurationError("datasets is empty: give at least one data set.")
        self.datasets = [copy.copy(dataset) for dataset in datasets]
        self._class_names = None if class_names is None else tuple(class_names)
        self._starts: NDArray[np.int64] | None = None
        self._labels: list[NDArray[np.int64]] = []

    @property
    def root(self) -> str | None:
        """The folder for parts that do not name one; ``None`` as long as there are such parts."""
        return None if any(getattr(dataset, "root", "") is None for dataset in self.datasets) else ""

    @root.setter
    def root(self, root: str | None) -> None:
        parts = [copy.copy(dataset) for dataset in self.datasets]
        for part in parts:
            if getattr(part, "root", "") is None:
                part.root = root  # type: ignore[attr-defined]
        self.datasets = parts

    @property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Names of the labels; those of all parts where none were given."""
        if self._class_names is None:
            self._class_names = tuple(dict.fromkeys(name for part in self.datasets for name in part.class_names))
        return self._class_names

    def use_class_names(self, names: Sequence[str]) -> None:
        """Label objects by the position of their class in ``names``; annotated classes must be among them."""
        self._class_names = tuple(names)
        self._starts = None

    def object_counts(self) -> NDArray[np.int64] | None:
        """Return ``(num_classes,)`` objects of each class, ``None`` if a part does not know them."""
        self._ready()
        counts = np.zeros(len(self.class_names), dtype=np.int64)
        for part, labels in zip(self.datasets, self._labels, strict=True):
            own = part.object_counts()
            if own is None:
                return None
            np.add.at(counts, labels, own)
        return counts

    def setup(self) -> None:
        """Read and check all parts."""
        self._ready()

    def _ready(self) -> NDArray[np.int64]:
        """Return ``(parts + 1,)`` where each part begins, and where the last one ends."""
        if self._starts is None:
            names = list(self.class_names)
            self.datasets = [copy.copy(part) for part in self.datasets]
            self._labels = []
            for part in self.datasets:
                if isinstance(part, (AnnotatedDataset, ConcatDataset)):  # these know which classes are in use
                    part.use_class_names(names)
                self._labels.append(_positions(part.class_names, names, type(part).__name__))
                part.setup()
            self._told_of_reversed = all(part._told_of_reversed for part in self.datasets)
            self._starts = np.cumsum([0, *map(len, self.datasets)])
        return self._starts

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self._ready()[-1])

    def locate(self, index: int) -> tuple[DetectionDataset, int]:
        """Return the part that image number ``index`` is in, and its number there."""
        part, position = self._find(index)
        return self.datasets[part], position

    def _find(self, index: int) -> tuple[int, int]:
        starts = self._ready()
        if not 0 <= index < starts[-1]:
            raise IndexError(f"index {index} is outside a data set of {starts[-1]} images.")
        part = int(np.searchsorted(starts, index, side="right")) - 1
        return part, index - int(starts[part])

    def load_image(self, index: int) -> NDArray[np.uint8]:
        """Return image number ``index`` as ``(H, W, 3)`` uint8 RGB."""
        part, position = self.locate(index)
        return part.load_image(position)

    def load_target(self, index: int) -> GroundTruth:
        """Return what is annotated in image number ``index``."""
        part, position = self._find(index)
        truth = self.datasets[part].load_target(position)
        labels, own = whole_labels(truth["labels"], truth.get("path", f"part {part}")), self._labels[part]
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(own):
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise AnnotationError(f"{truth.get('path', f'part {part}')} has label {wrong}, but {len(own)} classes.")
        return {"image_id": position, **truth, "labels": own[labels]}

    def image_path(self, index: int) -> Path | None:
        """Return the file of image number ``index``, where it is one."""
        part, position = self.locate(index)
        return part.image_path(position)

    def fingerprint(self) -> str | None:
        """Return the fingerprints of the parts, ``None`` if one has none, but images that are in no files."""
        self._ready()
        fingerprints = [part.fingerprint() for part in self.datasets]
        for part, known in zip(self.datasets, fingerprints, strict=True):
            if known is None and any(part.image_path(index) is None for index in range(len(part))):
                return None
        return None if set(fingerprints) == {None} else ",".join(str(known) for known in fingerprints)

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image number ``index``."""
        part, position = self.locate(index)
        return part.image_size(position)


def _positions(own: Sequence[str], names: Sequence[str], kind: str) -> NDArray[np.int64]:
    """Return the position of each of a part's classes among those of the run."""
    missing = [name for name in own if name not in names]
    if missing:
        raise DatasetError(
            f"a {kind} has the class {missing[0]!r}, but the classes of this run are {', '.join(names)}: add it to "
            "data.class_names."
        )
    return np.array([list(names).index(name) for name in own], dtype=np.int64)
