"""COCO files, read as far as they can be read."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.data.check.records import Problem, Split
from detlit.data.datasets.coco_file import CURE_OF_A_DATA_SET, CocoFile, Row
from detlit.data.datasets.files import IMAGE_SUFFIXES
from detlit.errors import AnnotationError

__all__ = ["collect_coco"]


def collect_coco(name: str, path: Path, folder: Path) -> Split:
    """Return what a COCO file says, and what in it cannot be read.

    Args:
        name: of the split.
        path: the json file.
        folder: of its images.

    Raises:
        DatasetError: the file as a whole cannot be read.
    """
    file = CocoFile(path, cure=CURE_OF_A_DATA_SET)
    problems: list[Problem] = []
    classes = _classes(file, problems)
    images = _images(file, problems)
    position = {row["id"]: number for number, row in enumerate(images)}
    rows = _annotations(file, position, set(classes), problems)
    numbers: NDArray[np.float64] = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    label_of = {key: label for label, key in enumerate(classes)}
    names = [row["file_name"] for row in images]
    return Split(
        name=name,
        source=str(path),
        format="coco",
        class_names=tuple(classes.values()),
        class_ids=tuple(classes),
        images=names,
        paths=[os.path.join(folder, image) for image in names],  # noqa: PTH118 - pathlib is slow for 100,000 files
        sizes=file.sizes(images).reshape(-1, 2),
        image=np.array([position[row["image_id"]] for row in rows], dtype=np.int64),
        labels=np.array([label_of[row["category_id"]] for row in rows], dtype=np.int64),
        boxes=np.hstack([numbers[:, :2], numbers[:, :2] + numbers[:, 2:]]),
        iscrowd=file.crowds(rows),
        sources=[_annotation(row) for row in rows],
        problems=problems,
        image_rows=images,
        rows=rows,
        unlisted=_unlisted(folder, names),
    )


def _classes(file: CocoFile, problems: list[Problem]) -> dict[int, str]:
    """Return id and name of each category; of those that repeat an id or a name, the first."""
    try:
        return file.categories()
    except AnnotationError as error:
        problems.append(Problem("malformed-record", "categories", _reason(error, file)))
    rows = file.content.get("categories")
    classes: dict[int, str] = {}
    for row in rows if isinstance(rows, list) else []:
        key, name = (row.get("id"), row.get("name")) if isinstance(row, dict) else (None, None)
        if type(key) is int and isinstance(name, str) and key not in classes and name not in classes.values():
            classes[key] = name
    return dict(sorted(classes.items()))


def _images(file: CocoFile, problems: list[Problem]) -> list[Row]:
    """Return the entries of images that can be read, each id and each file once."""

    def read(rows: Sequence[Row]) -> None:
        file.integers(rows, "id", "image")
        file.column(rows, "file_name", "image")
        file.sizes(rows)

    rows = _readable(file, file.rows("images"), read, "image", problems)
    names: dict[str, int] = {}
    ids: set[int] = set()
    kept = []
    for row in rows:
        if not isinstance(row["file_name"], str):
            problems.append(Problem("malformed-record", f"image {row['id']}", f"its file_name is {row['file_name']!r}"))
        elif row["id"] in ids:
            problems.append(Problem("repeated-image", f"image id {row['id']}", image=row["file_name"]))
        elif row["file_name"] in names:
            text = f"image ids {names[row['file_name']]} and {row['id']}"
            problems.append(Problem("repeated-image", row["file_name"], text))
            ids.add(row["id"])
            kept.append(row)
        else:
            ids.add(row["id"])
            names[row["file_name"]] = row["id"]
            kept.append(row)
    return kept


def _annotations(file: CocoFile, images: dict[int, int], classes: set[int], problems: list[Problem]) -> list[Row]:
    """Return the annotations that can be read, of images that are listed and classes that are declared."""

    def read(rows: Sequence[Row]) -> None:
        file.integers(rows, "image_id", "annotation")
        file.integers(rows, "category_id", "annotation")
        file.crowds(rows)
        file.boxes([row for row in rows if not _is_not_finite(row.get("bbox"))])

    kept = []
    for row in _readable(file, file.rows("annotations"), read, "annotation", problems):
        if row["image_id"] not in images:
            problems.append(Problem("unlisted-image", _annotation(row), f"image_id {row['image_id']}"))
        elif row["category_id"] not in classes:
            problems.append(Problem("undeclared-class", _annotation(row), f"category_id {row['category_id']}"))
        else:
            kept.append(row)
    repeated = [key for key, count in Counter(row["id"] for row in kept if "id" in row).items() if count > 1]
    problems += [Problem("repeated-id", f"annotation {key}") for key in repeated]
    return kept


def _readable(
    file: CocoFile, rows: Sequence[Row], read: Callable[[Sequence[Row]], None], kind: str, problems: list[Problem]
) -> list[Row]:
    """Return the rows that ``read`` accepts; halving finds the others, so that a good file costs one pass."""
    try:
        read(rows)
    except AnnotationError as error:
        if len(rows) == 1:
            place = f"{kind} {rows[0]['id']}" if "id" in rows[0] else kind
            problems.append(Problem("malformed-record", place, _reason(error, file)))
            return []
        half = len(rows) // 2
        return [row for part in (rows[:half], rows[half:]) for row in _readable(file, part, read, kind, problems)]
    return list(rows)


def _is_not_finite(value: Any) -> bool:
    """Tell whether a box is four numbers, some of them NaN or infinite."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(number, (int, float)) for number in value)
        and not all(abs(number) < float("inf") for number in value)
    )


def _annotation(row: Row) -> str:
    return f"annotation {row['id']}" if "id" in row else f"annotation {row!r:.60}"


def _reason(error: AnnotationError, file: CocoFile) -> str:
    """Return an error's sentence without the file, which the reader of the report knows."""
    return str(error).removeprefix(f"{file.path}: ").removeprefix(f"{file.path} ").removesuffix(".")


def _unlisted(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of image files in the folders of the listed images that are not listed."""
    folders: dict[str, set[str]] = {}
    for name in names:
        parent, file = os.path.split(name)
        folders.setdefault(parent, set()).add(file)
    found = []
    for parent, listed in folders.items():
        place = os.path.join(folder, parent)  # noqa: PTH118 - as os.path.split above
        for file in sorted(os.listdir(place)) if os.path.isdir(place) else ():  # noqa: PTH112, PTH208
            if file not in listed and os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
                found.append(os.path.join(place, file))  # noqa: PTH118
    return tuple(found)
