"""YOLO label files, read as far as they can be read."""

import os
from collections.abc import Sequence

import numpy as np

from detlit.data.check.records import Problem, Split
from detlit.data.datasets.yolo_file import label_path, parse_line
from detlit.data.images import image_size
from detlit.errors import AnnotationError, ImageReadError

__all__ = ["collect_yolo"]


def collect_yolo(name: str, source: str, class_names: Sequence[str], folder: str, images: Sequence[str]) -> Split:
    """Return what the label files of images say, and what in them cannot be read.

    Args:
        name: of the split.
        source: what messages call the annotations.
        class_names: of the class ids.
        folder: that the images start from.
        images: their files, from the folder on.
    """
    problems: list[Problem] = []
    paths = [os.path.join(folder, image) for image in images]  # noqa: PTH118 - pathlib is slow for 100,000 files
    sizes = np.array([_size(path) for path in paths], dtype=np.int64).reshape(-1, 2)
    image, labels, boxes, sources = [], [], [], []
    for position, path in enumerate(paths):
        file = label_path(path)
        for number, line in _lines(file, problems):
            place = f"{os.path.relpath(file, os.path.dirname(label_path(folder + '/x')))}:{number}"  # noqa: PTH120
            try:
                label, box = parse_line(line)
            except AnnotationError as error:
                problems.append(Problem("malformed-record", place, str(error).removesuffix("."), images[position]))
                continue
            if label >= len(class_names):
                problems.append(Problem("undeclared-class", place, f"class {label}", images[position]))
                continue
            image.append(position)
            labels.append(label)
            boxes.append(box)
            sources.append(place)
    owners = np.array(image, dtype=np.int64)
    problems += _lost(paths)
    return Split(
        name=name,
        source=source,
        format="yolo",
        class_names=tuple(class_names),
        class_ids=tuple(range(len(class_names))),
        images=list(images),
        paths=paths,
        sizes=sizes,
        image=owners,
        labels=np.array(labels, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4) * np.tile(sizes[owners][:, ::-1], 2),
        iscrowd=np.zeros(len(owners), dtype=np.bool_),
        sources=sources,
        problems=problems,
    )


def _size(path: str) -> tuple[int, int]:
    """Return (height, width), 0 where the image cannot be read, which is reported elsewhere."""
    try:
        return image_size(path)
    except ImageReadError:
        return 0, 0


def _lines(file: str, problems: list[Problem]) -> list[tuple[int, str]]:
    """Return number and text of each line that is not empty; without a file there are none."""
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as stream:  # noqa: PTH123 - pathlib is slow
            return [(number, line) for number, line in enumerate(stream, 1) if line.strip()]
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(Problem("unreadable-annotations", file, error.strerror or str(error)))
        return []


def _lost(paths: Sequence[str]) -> list[Problem]:
    """Return label files beside those of the images that belong to none of them."""
    wanted: dict[str, set[str]] = {}
    for path in paths:
        parent, file = os.path.split(label_path(path))
        wanted.setdefault(parent, set()).add(file)
    lost = []
    for parent, files in wanted.items():
        if os.path.basename(parent) == "images" or not os.path.isdir(parent):  # noqa: PTH112, PTH119
            continue
        others = [file for file in os.listdir(parent) if file.endswith(".txt") and file not in files]  # noqa: PTH208
        lost += [os.path.join(parent, file) for file in others if _looks_like_labels(parent, file)]  # noqa: PTH118
    return [Problem("lost-labels", file) for file in sorted(lost)]


def _looks_like_labels(parent: str, file: str) -> bool:
    """Tell whether a text file's first line is an object: README.txt and classes.txt are not."""
    lines = _lines(os.path.join(parent, file), [])  # noqa: PTH118
    try:
        return bool(lines) and parse_line(lines[0][1]) is not None
    except AnnotationError:
        return False
