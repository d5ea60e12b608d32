"""Data sets of the Hugging Face hub and of the ``datasets`` library; https://huggingface.co/docs/datasets."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.data.datasets.annotated import AnnotatedDataset, Classes
from detlit.data.datasets.box_formats import BoxFormat, check_box_format, to_xyxy
from detlit.data.datasets.labels import label_numbers
from detlit.data.datasets.table import AnnotationTable, ImageObjects, table_of
from detlit.data.images import decode_image, encoded_size, image_size, read_image
from detlit.errors import AnnotationError, ConfigurationError, DatasetError, MissingExtraError

__all__ = ["HuggingFaceDataset"]


class HuggingFaceDataset(AnnotatedDataset):
    """A data set of Hugging Face ``datasets``; needs ``pip install 'detlit[huggingface]'``.

    Annotations are read once, images are decoded from the arrow table when they are needed: no files are written.
    Columns are named with dots: ``objects.bbox`` is ``bbox`` in the column ``objects``, be that a list of objects or an
    object of lists.

    Args:
        data: a name on the hub, a folder that ``save_to_disk`` or the hub's tools wrote, or a ``datasets.Dataset``.
        split: of a data set that has several.
        configuration: of a data set on the hub that has several.
        image: column of the images.
        boxes: column of the boxes.
        labels: column of the labels, numbers or names.
        iscrowd: column that tells crowds, if there is one.
        area: column of the areas in square pixels, if there is one.
        image_id: column of integers that name the images, if there is one.
        box_format: ``"xywh"`` (COCO), ``"xyxy"`` or ``"cxcywh"`` (YOLO).
        normalized: boxes are fractions of the image's width and height instead of pixels.
        root: the folder that a folder given as ``data`` starts from; ``None`` is the working directory, or what the
            data module says.
        class_names: names of the labels; ``None`` takes those of the column's ``ClassLabel``, or the names that occur,
            sorted.
        classes: the classes to keep, in this order; objects of others are left out. A mapping renames too:
            ``{car: vehicle, bus: vehicle, dog: dog}``.
        ignore_empty: leave out images without objects.
        max_samples: keep only the first images, to try something out.

    Raises:
        ConfigurationError: an unknown ``box_format``.
        MissingExtraError: on first use: ``datasets`` is not installed.
        DatasetError: on first use: it cannot be loaded, or has no such split or column, or labels without names.
        AnnotationError: on first use: boxes or labels that cannot be.
        ImageReadError: an image that cannot be decoded.
    """

    def __init__(
        self,
        data: Any,
        split: str = "train",
        configuration: str | None = None,
        image: str = "image",
        boxes: str = "objects.bbox",
        labels: str = "objects.category",
        iscrowd: str | None = None,
        area: str | None = None,
        image_id: str | None = None,
        box_format: BoxFormat = "xywh",
        normalized: bool = False,
        root: str | None = None,
        class_names: Sequence[str] | None = None,
        classes: Classes | None = None,
        ignore_empty: bool = False,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(None, classes, ignore_empty, max_samples)
        check_box_format(box_format)
        if not isinstance(data, (str, os.PathLike)) and not hasattr(data, "with_format"):
            raise ConfigurationError(f"data is a {type(data).__name__}: give a name, a folder or a datasets.Dataset.")
        self.data = data
        self.split = split
        self.configuration = configuration
        self.columns = {"image": image, "boxes": boxes, "labels": labels}
        optional = {"iscrowd": iscrowd, "area": area, "image_id": image_id}
        self.columns |= {key: name for key, name in optional.items() if name is not None}
        self.box_format: BoxFormat = box_format
        self.normalized = normalized
        self.root = root
        self._declared = None if class_names is None else tuple(class_names)
        self._rows: Any = None
        self._images: Any = None

    @property
    def source(self) -> str:
        """The name or folder, and the split, for messages."""
        name = self.data if isinstance(self.data, (str, os.PathLike)) else type(self.data).__name__
        return f"{name} ({self.split})"

    def find_image_folder(self) -> Path:
        """Return the folder that image files start from, where the data set holds paths only."""
        return Path(self.root or "")

    # -------------------------------------------------------------------------------------------- annotations
    def _dataset(self) -> Any:
        """Return the ``datasets.Dataset``, loaded on first use."""
        if self._rows is None:
            self._rows = _load(self.data, self.root, self.configuration, self.split)
            for name in self.columns.values():
                _feature(self._rows, name)
            self._images = _undecoded(self._rows, self.columns["image"])
        return self._rows

    def read_class_names(self) -> tuple[str, ...]:
        """Return the names given, those of the ``ClassLabel``, or those that occur."""
        if self._declared is None:
            names = getattr(_feature(self._dataset(), self.columns["labels"]), "names", None)
            self._declared = tuple(self._occurring_names() if names is None else names)
        return self._declared

    def _occurring_names(self) -> list[str]:
        found = {label for row in self._values() for label in row["labels"]} - {None}
        if not all(isinstance(label, str) for label in found):
            raise DatasetError(
                f"{self.source} has labels without names in {self.columns['labels']!r}: list them in class_names."
            )
        return sorted(found)

    def _values(self) -> Iterator[dict[str, Any]]:
        """Yield the annotations of each image, by what they are."""
        paths = {key: name.split(".") for key, name in self.columns.items() if key != "image"}
        rows = self._dataset().select_columns(list(dict.fromkeys(path[0] for path in paths.values())))
        position = 0
        for batch in rows.with_format("arrow").iter(1000):
            for row in batch.to_pylist():
                values = {key: _follow(row, path) for key, path in paths.items()}
                if not isinstance(values["labels"], list):
                    raise AnnotationError(
                        f"{self.source} row {position} has the label {values['labels']!r}: the column "
                        f"{self.columns['labels']!r} must hold a list of labels, one per box."
                    )
                yield values
                position += 1

    def read_table(self) -> AnnotationTable:
        """Return all images and objects."""
        label_of = {name: label for label, name in enumerate(self.read_class_names())}
        rows, areas, image_ids = [], [], []
        for position, values in enumerate(self._values()):
            where = f"{self.source} row {position}"
            size = self._size_of(position) if self.normalized else None
            boxes = to_xyxy(values["boxes"], self.box_format, size, where)
            labels = label_numbers(values["labels"], label_of, where)
            for key in ("boxes", "iscrowd", "area"):
                _check_count(key, values.get(key, labels), len(labels), where)
            rows.append(ImageObjects(where, size, boxes.tolist(), labels, [bool(x) for x in values.get("iscrowd", ())]))
            areas += values.get("area", [])
            image_ids.append(values.get("image_id", position))
        if not all(type(key) is int for key in image_ids):
            wrong = next(key for key in image_ids if type(key) is not int)
            raise DatasetError(
                f"{self.source} has the image_id {wrong!r}: leave image_id out unless it holds integers."
            )
        table = table_of(rows).with_image_ids(np.array(image_ids, dtype=np.int64))
        return table.with_areas(np.array(areas, dtype=np.float64)) if "area" in self.columns else table

    # ------------------------------------------------------------------------------------------------- images
    def _check_images(self, table: AnnotationTable) -> None:
        """Images are in the table."""

    def _place(self, index: int) -> str:
        return str(self.table.file_names[index])

    def image_path(self, index: int) -> Path | None:
        """Return the file of image number ``index``, ``None`` where the image is in the arrow table."""
        encoded = self._encoded(self.position(index))
        return self.find_image_folder() / encoded if isinstance(encoded, str) else None

    def fingerprint(self) -> str | None:
        """Return the fingerprint by which ``datasets`` knows the content of the arrow table."""
        fingerprint = getattr(self._dataset(), "_fingerprint", None)
        return None if fingerprint is None else str(fingerprint)

    def load_image(self, index: int) -> NDArray[np.uint8]:
        """Return image number ``index`` as ``(H, W, 3)`` uint8 RGB."""
        encoded = self._encoded(self.position(index))
        if isinstance(encoded, str):
            return read_image(self.find_image_folder() / encoded)
        return decode_image(np.frombuffer(encoded, dtype=np.uint8), self._place(index))

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image number ``index``, mostly without decoding it."""
        return self._size_of(self.position(index))

    def _size_of(self, position: int) -> tuple[int, int]:
        encoded = self._encoded(position)
        if isinstance(encoded, str):
            return image_size(self.find_image_folder() / encoded)
        return encoded_size(encoded, f"{self.source} row {position}")

    def _encoded(self, position: int) -> bytes | str:
        """Return the bytes of an image file, or its path."""
        self._dataset()
        value = self._images[position][self.columns["image"]]
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if not isinstance(value, (bytes, str)):
            raise AnnotationError(f"{self.source} row {position} has no image in {self.columns['image']!r}: remove it.")
        return value


def _load(data: Any, root: str | None, configuration: str | None, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            "HuggingFaceDataset needs datasets, which is not installed: run pip install 'detlit[huggingface]'."
        ) from error
    if isinstance(data, (str, os.PathLike)):
        folder = Path(root or "", data)
        saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
        name = str(folder) if folder.exists() else str(data)
        try:
            data = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, configuration, split=split)
        except Exception as error:  # the library raises a dozen types, for every kind of remote and local trouble
            reason = " ".join(str(error).split())
            raise DatasetError(f"the data set {name} cannot be loaded ({reason}): check its name or folder.") from error
    if isinstance(data, dict):
        if split not in data:
            raise DatasetError(f"the data set has no split {split!r}: choose one of {', '.join(data)}.")
        data = data[split]
    return data


def _feature(rows: Any, name: str) -> Any:
    """Return the feature of a column named with dots, without the lists around it."""
    feature: Any = rows.features
    for key in name.split("."):
        if not isinstance(feature, dict) or key not in feature:
            raise DatasetError(
                f"there is no column {name!r}: the data set has {', '.join(rows.features)}; name the columns in the "
                "data set's arguments."
            )
        feature = feature[key]
        while isinstance(feature, list) or hasattr(feature, "feature"):
            feature = feature[0] if isinstance(feature, list) else feature.feature
    return feature


def _undecoded(rows: Any, image: str) -> Any:
    """Return the column of images, as the bytes of their files."""
    import datasets

    rows = rows.select_columns([image]).with_format(None)
    is_image = isinstance(rows.features[image], datasets.Image)
    return rows.cast_column(image, datasets.Image(decode=False)) if is_image else rows


def _follow(value: Any, path: Sequence[str]) -> Any:
    """Return what is at a path in nested dicts and lists of dicts; nothing is an empty list."""
    for key in path:
        value = [item[key] for item in value] if isinstance(value, list) else (value or {}).get(key)
    return [] if value is None else value


def _check_count(key: str, values: Any, count: int, where: str) -> None:
    """Refuse what is no list of one known value per label."""
    if not isinstance(values, list) or None in values:
        raise AnnotationError(f"{where} has {key} {values!r}: each label needs a value, in a list.")
    if len(values) != count:
        raise AnnotationError(f"{where} has {len(values)} {key} but {count} labels: give one for each.")
