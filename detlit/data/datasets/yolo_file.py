"""YOLO label files and ``data.yaml``, as Ultralytics and Roboflow write them.

https://docs.ultralytics.com/datasets/detect describes the format: one object per line, ``class cx cy w h`` in fractions
of the displayed image's width and height. An image without a label file, or with an empty one, shows nothing.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from detlit.data.datasets.files import read_text
from detlit.errors import AnnotationError, abridged

__all__ = ["DataYaml", "YoloObject", "label_path", "parse_line", "read_data_yaml", "read_labels", "read_list"]

_LARGEST_FRACTION = 2.0  # boxes reach beyond the image by a rounding or a bad drag, not by its whole size


class YoloObject(NamedTuple):
    """One line of a label file: class id, and the box xyxy in fractions of the image's width and height.

    The numbers are as written: neither cut off at the image's edges nor put in order.
    """

    label: int
    box: tuple[float, float, float, float]


def parse_line(line: str, *, confidence: bool = False) -> YoloObject:
    """Return the object of one line: ``class cx cy w h``, or ``class x1 y1 x2 y2 x3 y3 ...``, a polygon around it.

    Args:
        line: the text.
        confidence: a sixth number is a detector's score, and is left out.

    Raises:
        AnnotationError: another number of columns, words, a class id below 0 or with a fraction, or numbers that are
            not finite; the message quotes the line and names no file, which the caller knows.
    """
    words = line.split()
    count = len(words)
    if count == 6 and not confidence:
        raise AnnotationError(
            f"{_quoted(line)} has 6 columns: a sixth, a detector's confidence, is read with confidence=True only, as "
            "predictions are seldom meant as annotations."
        )
    if count not in (5, 6) and (count < 7 or count % 2 == 0):
        raise AnnotationError(
            f"{_quoted(line)} has {count} columns: write class, centre x, centre y, width and height, or class and "
            "three or more x y of a polygon."
        )
    try:
        label, *numbers = [float(word) for word in words]
    except ValueError:
        raise AnnotationError(f"{_quoted(line)} holds something that is no number: write numbers only.") from None
    if not all(math.isfinite(number) for number in numbers):
        raise AnnotationError(f"{_quoted(line)} holds a number that is not finite: correct the box.")
    if not label.is_integer() or label < 0:  # also NaN and infinity
        raise AnnotationError(f"{_quoted(line)} has class {words[0]}: classes count 0, 1, 2, ...")
    if count >= 7:
        x, y = numbers[::2], numbers[1::2]
        return YoloObject(int(label), (min(x), min(y), max(x), max(y)))
    x_centre, y_centre, width, height = numbers[:4]
    box = (x_centre - width / 2, y_centre - height / 2, x_centre + width / 2, y_centre + height / 2)
    return YoloObject(int(label), box)


def read_labels(path: str | Path, *, confidence: bool = False) -> list[YoloObject]:
    """Return the objects of a label file; blank lines are none.

    Raises:
        DatasetError: the file is unreadable.
        AnnotationError: a line that :func:`parse_line` refuses, or whose numbers must be pixels.
    """
    objects = []
    for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        if not line or line.isspace():
            continue
        try:
            item = parse_line(line, confidence=confidence)
        except AnnotationError as error:
            raise AnnotationError(f"{path} line {number}: {error}") from None
        if max(item.box) > _LARGEST_FRACTION or min(item.box) < -_LARGEST_FRACTION:
            raise AnnotationError(
                f"{path} line {number}: {_quoted(line)} reaches far beyond the image: write fractions of its width and "
                "height, not pixels."
            )
        objects.append(item)
    return objects


def label_path(image: str) -> str:
    """Return where the labels of an image are: ``labels`` for the last folder ``images`` of its path, else beside it.

    >>> label_path("cells/images/train/1.jpg")
    'cells/labels/train/1.txt'
    """
    folder, name = os.path.split(image)  # pathlib is slow for 100,000 files
    parts = folder.split(os.sep)  # noqa: PTH206
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return os.path.join(os.sep.join(parts), os.path.splitext(name)[0] + ".txt")  # noqa: PTH118, PTH122


@dataclass(frozen=True)
class DataYaml:
    """What ``data.yaml`` says.

    Attributes:
        path: the file.
        class_names: names of the class ids 0, 1, 2, ...
        splits: for each of ``"train"``, ``"val"`` and ``"test"`` that it names, folders of images or lists of them.
    """

    path: Path
    class_names: tuple[str, ...]
    splits: dict[str, tuple[Path, ...]]


def read_data_yaml(path: str | Path) -> DataYaml:
    """Read ``data.yaml``: ``names`` as a list or by id, ``train``, ``val`` and ``test`` as a folder, a list, or both.

    Paths start from ``path``, which starts from the file's own folder. Roboflow's ``../train/images`` means the folder
    ``train/images`` beside the file, and its ``valid`` is ``val``.

    Raises:
        DatasetError: the file is missing or unreadable.
        AnnotationError: it is no yaml, or has no class names, or ones that contradict each other.
    """
    path = Path(path)
    content = _load(path)
    given = content.get("path")
    base = path.parent if given is None else _existing(path.parent, str(given))
    aliases = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
    splits = {}
    for split, keys in aliases.items():
        value = next((content[key] for key in keys if content.get(key)), None)
        entries = value if isinstance(value, list) else [value]
        if value is not None:
            splits[split] = tuple(_existing(base, str(entry)) for entry in entries)
    return DataYaml(path, _class_names(path, content), splits)


def read_list(path: str | Path) -> list[str]:
    """Return the images that a text file lists, one a line; relative ones start from the file's folder.

    Where nothing is there, they start from the nearest folder above in which the first one exists.

    Raises:
        DatasetError: the file is missing or unreadable.
    """
    path = Path(path)
    lines = [os.path.normpath(line.strip()) for line in read_text(path).splitlines() if line.strip()]
    folders = [path.parent, *path.parent.parents]
    base = next((folder for folder in folders if lines and (folder / lines[0]).is_file()), path.parent)
    return [os.path.join(base, line) for line in lines]  # noqa: PTH118 - pathlib is slow for 100,000 files


def _existing(base: Path, given: str) -> Path:
    """Return ``base / given``, without the leading ``..`` that Roboflow writes where only that exists."""
    path = base / given
    stripped = base / given.replace("\\", "/").removeprefix("../")
    return stripped if stripped.exists() and not path.exists() else path


def _class_names(path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise AnnotationError(
                f"{path} names the classes {abridged(names, 8)}: give each of 0, 1, 2, ... a name, none left out."
            )
        names = [names[key] for key in range(len(names))]
    if not isinstance(names, list) or not names:
        raise AnnotationError(f"{path} has no class names: add 'names: [cat, dog]' or 'names: {{0: cat, 1: dog}}'.")
    if count is not None and count != len(names):
        raise AnnotationError(f"{path} says nc: {count}, but names {len(names)} classes: correct one of the two.")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise AnnotationError(f"{path} names two classes {repeated[0]!r}: make the names unique.")
    return tuple(str(name) for name in names)


def _load(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise AnnotationError(f"{path} is not valid yaml ({reason}): correct it.") from error
    if not isinstance(content, dict):
        raise AnnotationError(f"{path} holds no settings: a data.yaml has 'names', 'train' and 'val'.")
    return content


def _quoted(line: str, limit: int = 60) -> str:
    line = " ".join(line.split())
    return repr(line if len(line) <= limit else line[:limit] + "...")
