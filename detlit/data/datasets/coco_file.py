"""COCO annotation files, read and checked; https://cocodataset.org/#format-data describes the format."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.data.datasets.table import AnnotationTable, offsets_of
from detlit.errors import AnnotationError, DatasetError, MissingDataError, abridged

__all__ = ["CURE_OF_A_DATA_SET", "CocoFile", "Row", "read_categories", "read_class_names", "read_table"]

Row = dict[str, Any]

CURE_OF_A_DATA_SET = "check data.root and the data set's 'annotations'"
"""What to do where a data set's file is missing."""

_ROBOFLOW_FILE = "_annotations.coco.json"
"""How Roboflow calls the annotation file of each split, which it puts among the images."""

_TAIL_BYTES = 1 << 20


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names of all declared categories, in the order of their ids; most of a large file is not parsed.

    Raises:
        DatasetError: the file is missing.
        AnnotationError: it is no COCO file.
    """
    return tuple(read_categories(path).values())


def read_categories(path: Path) -> dict[int, str]:
    """Return id and name of all declared categories, as :func:`read_class_names` does."""
    rows = _find_categories(path)
    content = None if rows is None else {"categories": rows}
    return CocoFile(path, content, CURE_OF_A_DATA_SET).categories()


def read_table(path: Path) -> AnnotationTable:
    """Read and check an annotation file; labels are positions in :func:`read_class_names`.

    Raises:
        DatasetError: the file is missing or lists no images.
        AnnotationError: an entry is incomplete, contradictory, or no number.
    """
    file = CocoFile(path, cure=CURE_OF_A_DATA_SET)
    images, annotations = file.rows("images"), file.rows("annotations")
    if not images:
        raise DatasetError(f"{path} lists no images: choose another annotation file.")
    image_ids = file.integers(images, "id", "image")
    owners = file.owners(image_ids, annotations)
    by_image = np.argsort(owners, kind="stable")
    annotations = [annotations[row] for row in by_image]
    boxes = file.boxes(annotations)
    return AnnotationTable(
        image_ids=image_ids,
        file_names=np.array(file.column(images, "file_name", "image"), dtype=np.str_),
        sizes=file.sizes(images),
        offsets=offsets_of(np.bincount(owners, minlength=len(images))),
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        labels=file.labels(annotations),
        iscrowd=file.crowds(annotations),
        areas=file.areas(annotations, boxes),
        annotation_ids=np.array([_name(row) for row in annotations], dtype=np.str_),
    )


class CocoFile:
    """A parsed annotation file; its methods return checked columns and name the file in their errors.

    Args:
        path: the json file.
        content: what it holds, if known already.
        cure: what to do where there is no such file, the end of that error's sentence.

    Raises:
        DatasetError: the file is missing or unreadable.
        AnnotationError: it is no json object.
    """

    def __init__(self, path: Path, content: Row | None = None, cure: str = "correct its path") -> None:
        self.path = path
        self.content = _load(path, cure) if content is None else content

    def rows(self, key: str) -> list[Row]:
        """Return one of the file's lists."""
        rows = self.content.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise AnnotationError(
                f"{self.path} has no list {key!r}: a COCO file holds 'images', 'annotations' and 'categories'."
            )
        return rows

    def column(self, rows: Sequence[Row], key: str, kind: str) -> list[Any]:
        """Return one value of every row."""
        for row in rows:
            if row.get(key) is None:
                raise AnnotationError(f"{self.path}: {kind} {_name(row)} has no {key!r}: add it.")
        return [row[key] for row in rows]

    def integers(self, rows: Sequence[Row], key: str, kind: str) -> NDArray[np.int64]:
        """Return one integer of every row."""
        values = self.column(rows, key, kind)
        for row, value in zip(rows, values, strict=True):
            if type(value) is not int or not -(2**63) <= value < 2**63:
                raise AnnotationError(
                    f"{self.path}: {kind} {_name(row)} has {key} {value!r}: write an integer of at most 64 bits."
                )
        return np.array(values, dtype=np.int64)

    def sizes(self, images: Sequence[Row]) -> NDArray[np.int64]:
        """Return ``(I, 2)`` height and width of each image, 0 where they are not given."""
        for row in images:
            for key in ("height", "width"):
                if row.get(key) is not None and not _is_pixel_count(row[key]):
                    raise AnnotationError(
                        f"{self.path}: image {_name(row)} has {key} {row[key]!r}: write a positive integer, or leave "
                        "height and width out."
                    )
        return np.array([(row.get("height") or 0, row.get("width") or 0) for row in images], dtype=np.int64)

    def crowds(self, annotations: Sequence[Row]) -> NDArray[np.bool_]:
        """Return ``(M,)`` whether each annotation is of a crowd, not so where it is not said."""
        values = [row.get("iscrowd") for row in annotations]
        for row, value in zip(annotations, values, strict=True):
            if value not in (0, 1, None):
                raise AnnotationError(f"{self.path}: annotation {_name(row)} has iscrowd {value!r}: write 0 or 1.")
        return np.array(values, dtype=np.bool_)

    def categories(self) -> dict[int, str]:
        """Return id and name of each category, ascending by id."""
        rows = self.rows("categories")
        if not rows:
            raise AnnotationError(f"{self.path} declares no categories: list the classes there.")
        ids = self.integers(rows, "id", "category").tolist()
        names = [str(name) for name in self.column(rows, "name", "category")]
        self.refuse_repeated(ids, "category id")
        self.refuse_repeated(names, "category name")
        return dict(sorted(zip(ids, names, strict=True)))

    def refuse_repeated(self, values: Sequence[Any], kind: str) -> None:
        """Raise an error when a value that must be unique is not."""
        repeated = [value for value, count in Counter(values).items() if count > 1]
        if repeated:
            raise AnnotationError(
                f"{self.path}: {kind} {repeated[0]!r} is used twice{_and_others(len(repeated) - 1)}: make them unique."
            )

    def owners(self, image_ids: NDArray[np.int64], annotations: Sequence[Row]) -> NDArray[np.int64]:
        """Return ``(M,)`` the position of each annotation's image."""
        self.refuse_repeated(image_ids.tolist(), "image id")
        wanted = self.integers(annotations, "image_id", "annotation")
        order: NDArray[np.int64] = np.argsort(image_ids)
        found = np.searchsorted(image_ids[order], wanted).clip(max=len(image_ids) - 1)
        lost = np.flatnonzero(image_ids[order][found] != wanted)
        if len(lost):
            raise AnnotationError(
                f"{self.path}: annotation {_name(annotations[lost[0]])} belongs to image id {wanted[lost[0]]}, which "
                f"'images' does not list{_and_others(len(lost) - 1)}: add the image or remove the annotation."
            )
        owners: NDArray[np.int64] = order[found]
        return owners

    def boxes(self, annotations: Sequence[Row]) -> NDArray[np.float64]:
        """Return ``(M, 4)`` x, y, width, height."""
        values = self.column(annotations, "bbox", "annotation")
        for row, value in zip(annotations, values, strict=True):
            if not _is_box(value):
                raise AnnotationError(
                    f"{self.path}: annotation {_name(row)} has bbox {value!r}: write four finite numbers, "
                    "x, y, width and height."
                )
        return np.array(values, dtype=np.float64).reshape(-1, 4)

    def areas(self, annotations: Sequence[Row], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``(M,)`` the area of each annotation, that of its box where none is given."""
        areas = boxes[:, 2] * boxes[:, 3]
        for position, row in enumerate(annotations):
            value = row.get("area")
            if value is not None and not _is_number(value):
                raise AnnotationError(
                    f"{self.path}: annotation {_name(row)} has area {value!r}: write a finite number."
                )
            areas[position] = areas[position] if value is None else value
        return areas

    def labels(self, annotations: Sequence[Row]) -> NDArray[np.int64]:
        """Return ``(M,)`` the position of each annotation's category among the declared ones."""
        label_of = {key: label for label, key in enumerate(self.categories())}
        ids = self.integers(annotations, "category_id", "annotation").tolist()
        for row, key in zip(annotations, ids, strict=True):
            if key not in label_of:
                raise AnnotationError(
                    f"{self.path}: annotation {_name(row)} has category_id {key}, which 'categories' does not declare: "
                    f"the declared ones are {abridged(label_of)}."
                )
        return np.array([label_of[key] for key in ids], dtype=np.int64)


def _load(path: Path, cure: str) -> Row:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error, cure) from error
    except ValueError as error:
        raise AnnotationError(f"annotation file {path} is not valid json ({error}): export it again.") from error
    if not isinstance(content, dict):
        raise AnnotationError(
            f"annotation file {path} holds a {type(content).__name__}: a COCO file is an object with 'images', "
            "'annotations' and 'categories'."
        )
    return content


def _unreadable(path: Path, error: OSError, cure: str) -> DatasetError:
    if isinstance(error, FileNotFoundError):
        hint = _hint_at_others(path) if cure == CURE_OF_A_DATA_SET else None
        return MissingDataError(f"there is no annotation file {path}{hint or f': {cure}'}.")
    return DatasetError(f"annotation file {path} cannot be read ({error.strerror}): give a readable json file.")


def _hint_at_others(path: Path) -> str | None:
    """Return what to do instead of reading a missing file, from what lies where it should be, or a folder above."""
    for folder in path.parents[:2]:
        if path.name != _ROBOFLOW_FILE and any(folder.glob(f"*/{_ROBOFLOW_FILE}")):
            return f", but {folder} is an export of Roboflow: use --data roboflow"
        others = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])
        if others:
            names = abridged(other.relative_to(folder).as_posix() for other in others)
            return f", but {folder} holds {names}: {CURE_OF_A_DATA_SET}"
        for file, name, data in (("data.yaml", "YOLO", "yolo"), ("JPEGImages", "VOC", "voc")):
            if (folder / file).exists():
                return f", but {folder} holds {file}, as {name} data sets do: use --data {data}"
    return None


def _find_categories(path: Path) -> list[Row] | None:
    """Return the categories if they are the last entry of the file, as COCO's are, without parsing the rest of it."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            tail = file.read().decode(errors="replace")
    except OSError as error:
        raise _unreadable(path, error, CURE_OF_A_DATA_SET) from error
    key = re.compile(r'"categories"\s*:\s*').match(tail, max(0, tail.rfind('"categories"')))
    try:
        rows, end = json.JSONDecoder().raw_decode(tail, key.end()) if key else (None, 0)
    except ValueError:
        return None
    return rows if tail[end:].strip() == "}" else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < float("inf")


def _is_pixel_count(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 2**63 and value % 1 == 0


def _is_box(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(_is_number(number) for number in value)


def _name(row: Row) -> str:
    """Return how messages call a row: by its id, or by what it holds."""
    return str(row["id"]) if "id" in row else repr(row)[:80]


def _and_others(count: int) -> str:
    return f" (and {count} others)" if count > 0 else ""
