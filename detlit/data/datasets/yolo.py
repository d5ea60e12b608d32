"""Data sets in YOLO's layout: a text file of normalised boxes per image."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from detlit.data.datasets.annotated import AnnotatedDataset, Classes
from detlit.data.datasets.cache import cached_arrays, fingerprint
from detlit.data.datasets.files import IMAGE_SUFFIXES, list_files, missing_files, relative_to, stem
from detlit.data.datasets.table import AnnotationTable, ImageObjects, table_of
from detlit.data.datasets.yolo_file import label_path, read_data_yaml, read_labels, read_list
from detlit.data.images import image_size
from detlit.errors import AnnotationError, ConfigurationError, DatasetError, MissingDataError

__all__ = ["YoloDataset"]


class YoloDataset(AnnotatedDataset):
    """Images with one label file each, as Ultralytics and Roboflow write them. Nothing is read before the first use.

    The labels of ``images/train/1.jpg`` are ``labels/train/1.txt``; where no such folder ``labels`` exists, they are
    beside the image. An image without label file is background. Polygons become the boxes around them, and boxes are
    fractions of the image as displayed, with its EXIF turn. What was read is kept in a cache, which is used only while
    no name, size or time of change of an image or label file differs.

    Args:
        split: what to take from ``data_yaml``: ``"train"``, ``"val"`` or ``"test"``.
        data_yaml: the file that names classes and splits, relative to ``root``.
        images: a folder of images, a text file that lists them, or several of these, relative to ``root``, instead of a
            split.
        labels: a folder of label files with the same folders in it as in that of the images, relative to ``root``,
            instead of the rule above.
        root: the folder of the data set; ``None`` is the working directory, or what the data module says.
        class_names: names of the class ids; ``None`` takes those of ``data_yaml``.
        confidence: accept a sixth number, a detector's score, and leave it out.
        classes: the classes to keep, in this order; objects of others are left out. A mapping renames too:
            ``{car: vehicle, bus: vehicle, dog: dog}``.
        ignore_empty: leave out images without objects.
        max_samples: keep only the first images, to try something out.

    Raises:
        ConfigurationError: ``labels`` without a single folder ``images``.
        DatasetError: on first use: a missing file or folder, no images, or no label file at all.
        AnnotationError: on first use: a line that cannot be understood.
        ImageReadError: an image that cannot be read.
    """

    def __init__(
        self,
        split: Literal["train", "val", "test"] = "train",
        data_yaml: str = "data.yaml",
        images: str | Sequence[str] | None = None,
        labels: str | None = None,
        root: str | None = None,
        class_names: Sequence[str] | None = None,
        confidence: bool = False,
        classes: Classes | None = None,
        ignore_empty: bool = False,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(None, classes, ignore_empty, max_samples)
        if labels is not None and not isinstance(images, str):
            raise ConfigurationError(f"labels={labels!r} mirrors one folder of images: give that as images.")
        self.split = split
        self.data_yaml = data_yaml
        self.images = images
        self.labels = labels
        self.root = root
        self.confidence = confidence
        self._declared = None if class_names is None else tuple(class_names)

    @property
    def source(self) -> str:
        """The images' folder or list, or data.yaml and the split, for messages."""
        if self.images is None:
            return f"{Path(self.root or '', self.data_yaml)} ({self.split})"
        images = [self.images] if isinstance(self.images, str) else list(self.images)
        return ", ".join(str(Path(self.root or "", entry)) for entry in images)

    def read_class_names(self) -> tuple[str, ...]:
        """Return the names of the class ids."""
        if self._declared is None:
            self._declared = read_data_yaml(Path(self.root or "", self.data_yaml)).class_names
        return self._declared

    def find_image_folder(self) -> Path:
        """Return the folder that file names start from."""
        return Path(self.root or "")

    def read_table(self) -> AnnotationTable:
        """Return all images and objects, from the cache if nothing has changed."""
        images, labels = self.files()
        _refuse_lost(self.source, images)
        absent = set(missing_files(labels))
        present = [path for path in labels if path not in absent]
        if not present:
            raise DatasetError(
                f"none of the {len(images)} images of {self.source} has a label file, the first was looked for at "
                f"{labels[0]}: check the folders, or set 'labels'."
            )
        key = fingerprint([*images, *present], str(self.confidence), *sorted(absent))
        arrays = cached_arrays(
            self.find_image_folder(), self.source, key, lambda: vars(self._parse(images, labels, absent))
        )
        table = AnnotationTable(**arrays)
        self._check_ids(table)
        return table

    def files(self) -> tuple[list[str], list[str]]:
        """Return the paths of the images, and where the label file of each would be; none of them need exist.

        Raises:
            DatasetError: a folder or list is missing, there are no images, or two share a label file.
        """
        images = self._images()
        return images, self._labels_of(images)

    def _images(self) -> list[str]:
        """Return the paths of the images."""
        root = Path(self.root or "")
        if self.images is None:
            content = read_data_yaml(root / self.data_yaml)
            if self.split not in content.splits:
                raise MissingDataError(
                    f"{content.path} names no split {self.split!r}: add it, or choose another split."
                )
            entries = list(content.splits[self.split])
        else:
            entries = [root / entry for entry in ([self.images] if isinstance(self.images, str) else self.images)]
        images = [path for entry in entries for path in _images_in(Path(os.path.normpath(entry)))]
        if not images:
            raise DatasetError(
                f"there are no images in {', '.join(str(entry) for entry in entries)}: check the folder."
            )
        return images

    def _labels_of(self, images: list[str]) -> list[str]:
        """Return where the label file of each image would be."""
        if self.labels is not None:
            start, labels = (
                os.path.normpath(Path(self.root or "", str(self.images))),
                Path(self.root or "", self.labels),
            )
            paths = [str(labels / (stem(os.path.relpath(image, start)) + ".txt")) for image in images]
        else:
            twins: dict[str, bool] = {}
            paths = []
            for image in images:
                path = label_path(image)
                folder = os.path.dirname(path)  # noqa: PTH120
                if folder not in twins:
                    twins[folder] = os.path.isdir(folder)  # noqa: PTH112
                paths.append(path if twins[folder] else stem(image) + ".txt")
        image_of: dict[str, str] = {}
        for image, path in zip(images, paths, strict=True):
            if image_of.setdefault(path, image) != image:
                raise DatasetError(
                    f"images {image_of[path]} and {image} share the label file {path}: rename one of them."
                )
        return paths

    def _parse(self, images: list[str], labels: list[str], absent: set[str]) -> AnnotationTable:
        names = relative_to(self.find_image_folder(), images)
        rows = []
        for name, image, path in zip(names, images, labels, strict=True):
            height, width = image_size(image)
            objects = [] if path in absent else read_labels(path, confidence=self.confidence)
            boxes = [
                (x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in (item.box for item in objects)
            ]
            rows.append(ImageObjects(name, (height, width), boxes, [item.label for item in objects]))
        return table_of(rows)

    def _check_ids(self, table: AnnotationTable) -> None:
        names = self.read_class_names()
        wrong = (table.labels >= len(names)).nonzero()[0]
        if len(wrong):
            raise AnnotationError(
                f"{table.name_of(int(wrong[0]))} has class {table.labels[wrong[0]]}, but {len(names)} classes are "
                f"named, 0 to {len(names) - 1}: correct the label file, or add the name."
            )


def _images_in(entry: Path) -> list[str]:
    """Return the images of a folder, of a text file that lists them, or the one image."""
    if entry.suffix.lower() == ".txt":
        return read_list(entry)
    return [str(entry)] if entry.is_file() else list_files(entry, IMAGE_SUFFIXES)


def _refuse_lost(source: str, images: list[str]) -> None:
    lost = missing_files(images)
    if lost:
        raise DatasetError(
            f"{len(lost)} of the {len(images)} images of {source} are missing, the first is {lost[0]}: check the list."
        )
