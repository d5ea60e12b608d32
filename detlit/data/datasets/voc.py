"""Data sets in Pascal VOC's layout: an xml file per image."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from detlit.data.datasets.annotated import AnnotatedDataset, Classes
from detlit.data.datasets.cache import Arrays, cached_arrays, fingerprint
from detlit.data.datasets.files import IMAGE_SUFFIXES, list_files, read_text, relative_to, stem
from detlit.data.datasets.table import AnnotationTable, ImageObjects, table_of
from detlit.data.datasets.voc_file import VocAnnotation, read_voc_file
from detlit.errors import ConfigurationError, DatasetError

__all__ = ["VocDataset"]


class VocDataset(AnnotatedDataset):
    """Images with one Pascal VOC xml file each. Nothing is read before the first use.

    Image and xml file have the same name but for the suffix, and may be in one folder. An image without xml file is
    background. What was read is kept in a cache, which is used only while no name, size or time of change of an xml
    file differs.

    Args:
        annotations: the folder of the xml files, relative to ``root``.
        images: the folder of the images, relative to ``root``.
        split: which images: the name of a list in ``ImageSets/Main``, or the path of another list relative to ``root``;
            ``None`` takes all in the folder.
        difficult: what becomes of objects marked so: ``"ignore"`` treats them as COCO does crowds (not trained on, and
            detections of them count neither way), ``"keep"`` as any other object, ``"drop"`` leaves them out.
        one_based: pixels are counted from 1, as in the original challenge: 1 is subtracted from xmin and ymin.
            Labelling tools count from 0.
        root: the folder of the data set; ``None`` is the working directory, or what the data module says.
        class_names: names of the labels in their order; ``None`` takes those in the xml files, sorted, or what the data
            module says.
        classes: the classes to keep, in this order; objects of others are left out. A mapping renames too:
            ``{car: vehicle, bus: vehicle, dog: dog}``.
        ignore_empty: leave out images without objects.
        max_samples: keep only the first images, to try something out.

    Raises:
        ConfigurationError: an unknown value of ``difficult``.
        DatasetError: on first use: a missing file or folder, no images, or no xml file at all.
        AnnotationError: on first use: an xml file that cannot be understood.
        ImageReadError: from ``load_image``: a file that cannot be read or has another size than its annotations say.
    """

    def __init__(
        self,
        annotations: str = "Annotations",
        images: str = "JPEGImages",
        split: str | None = None,
        difficult: Literal["ignore", "keep", "drop"] = "ignore",
        one_based: bool = False,
        root: str | None = None,
        class_names: Sequence[str] | None = None,
        classes: Classes | None = None,
        ignore_empty: bool = False,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(class_names, classes, ignore_empty, max_samples)
        if difficult not in ("ignore", "keep", "drop"):
            raise ConfigurationError(f"difficult={difficult!r} is unknown: choose 'ignore', 'keep' or 'drop'.")
        self.annotations = annotations
        self.images = images
        self.split = split
        self.difficult = difficult
        self.one_based = one_based
        self.root = root

    @property
    def source(self) -> str:
        """The folder of the xml files, and the split, for messages."""
        folder = str(Path(self.root or "", self.annotations))
        return folder if self.split is None else f"{folder} ({self.split})"

    def find_image_folder(self) -> Path:
        """Return the folder of the images."""
        return Path(self.root or "", self.images)

    def read_class_names(self) -> tuple[str, ...]:
        """Return the names in the xml files, sorted."""
        return tuple(self._arrays()["class_names"].tolist())

    def read_table(self) -> AnnotationTable:
        """Return all images and objects, from the cache if nothing has changed."""
        arrays = {**self._arrays()}
        difficult, _ = arrays.pop("difficult"), arrays.pop("class_names")
        table = AnnotationTable(**arrays)
        if self.one_based:
            table = table.with_boxes(table.boxes - [1.0, 1.0, 0.0, 0.0])
        if self.difficult == "drop":
            return table.select_objects(~difficult.astype(np.bool_))
        return table.with_crowds(difficult.astype(np.bool_)) if self.difficult == "ignore" else table

    def _arrays(self) -> Arrays:
        """Return the table of all objects, which of them are difficult, and the class names."""
        folder = self.find_image_folder()
        images, files = self.files()
        present = [file for file in files if file is not None]
        if not present:
            raise DatasetError(
                f"none of the {len(images)} images in {folder} has an xml file in "
                f"{Path(self.root or '', self.annotations)}: check the folders."
            )
        names = relative_to(folder, images)
        key = fingerprint(present, *names)
        return cached_arrays(Path(self.root or ""), f"{self.source} {folder}", key, lambda: _parse(names, files))

    def files(self) -> tuple[list[str], list[str | None]]:
        """Return the paths of the images, and the xml file of each, or ``None``.

        Raises:
            DatasetError: a folder or an image is missing, or there are no images.
        """
        folder, annotations = self.find_image_folder(), Path(self.root or "", self.annotations)
        xml_of = _by_stem(annotations, {".xml"})
        image_of = _by_stem(folder, IMAGE_SUFFIXES)
        stems = sorted(image_of.keys() | xml_of.keys()) if self.split is None else self._listed(image_of)
        if not stems:
            raise DatasetError(f"{self.source} has no images: check the folders and the split.")
        lost = [name for name in stems if name not in image_of]
        if lost:
            raise DatasetError(
                f"{len(lost)} of {len(stems)} images of {self.source} are missing in {folder}, the first is {lost[0]}: "
                "check 'images', or name a 'split' of images that are there."
            )
        return [image_of[name] for name in stems], [xml_of.get(name) for name in stems]

    def _listed(self, image_of: dict[str, str]) -> list[str]:
        """Return the names in the split's list; lists of one class have a second column, which is left out."""
        root = Path(self.root or "")
        given = root / str(self.split)
        path = given if given.is_file() else root / "ImageSets" / "Main" / f"{self.split}.txt"
        names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        return [name if name in image_of else name.split()[0] for name in names]


def _by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, str]:
    """Return the path of each file by its name from the folder on, without suffix."""
    paths = list_files(folder, suffixes)
    found = dict(zip(map(stem, relative_to(folder, paths)), paths, strict=True))
    if len(found) < len(paths):
        twin = next(path for path in paths if path not in found.values())
        raise DatasetError(f"{twin} has the name of another file but for its suffix: rename one, as xml files need it.")
    return found


def _parse(names: list[str], files: list[str | None]) -> Arrays:
    annotations = [VocAnnotation() if file is None else read_voc_file(file) for file in files]
    class_names = sorted({name for annotation in annotations for name in annotation.names})
    label_of = {name: label for label, name in enumerate(class_names)}
    rows = [
        ImageObjects(name, annotation.size, annotation.boxes, [label_of[name] for name in annotation.names])
        for name, annotation in zip(names, annotations, strict=True)
    ]
    difficult = [flag for annotation in annotations for flag in annotation.difficult]
    return {
        **vars(table_of(rows)),
        "difficult": np.array(difficult, dtype=np.bool_),
        "class_names": np.array(class_names, dtype=np.str_),
    }
