"""YOLO label files, read as far as they can be read."""

import os
from collections.abc import Sequence

import numpy as np

from detlit.data.check.records import Problem, Split
from detlit.data.datasets.files import relative_to
from detlit.data.datasets.yolo_file import parse_line
from detlit.data.images import image_size
from detlit.errors import AnnotationError, ImageReadError

__all__ = ["collect_yolo"]


def collect_yolo(
    name: str,
    source: str,
    class_names: Sequence[str],
    root: str,
    images: Sequence[str],
    labels: Sequence[str],
    confidence: bool = False,
) -> Split:
    """Return what label files say, and what in them cannot be read.

    Args:
        name: of the split.
        source: what messages call the annotations.
        class_names: of the class ids.
        root: folder that names in messages start from.
        images: files of the images.
        labels: the label file of each, there or not.
        confidence: accept a sixth number in a line.
    """
    problems: list[Problem] = []
    sizes = np.array([_size(path) for path in images], dtype=np.int64).reshape(-1, 2)
    names, files = relative_to(root, images), relative_to(root, labels)
    owners, ids, boxes, sources = [], [], [], []
    for position, path in enumerate(labels):
        for number, line in _lines(path, problems):
            place = f"{files[position]} line {number}"
            try:
                label, box = parse_line(line, confidence=confidence)
            except AnnotationError as error:
                problems.append(Problem("malformed-record", place, str(error).removesuffix(".")))
                continue
            if label >= len(class_names):
                problems.append(Problem("undeclared-class", place, f"class {label}"))
                continue
            owners.append(position)
            ids.append(label)
            boxes.append(box)
            sources.append(place)
    image = np.array(owners, dtype=np.int64)
    scales = np.where(sizes > 0, sizes, 1)[image][:, ::-1]  # unreadable images leave fractions as they are
    return Split(
        name=name,
        source=source,
        format="yolo",
        class_names=tuple(class_names),
        class_ids=tuple(range(len(class_names))),
        images=names,
        paths=list(images),
        sizes=sizes,
        image=image,
        labels=np.array(ids, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4) * np.tile(scales, 2),
        iscrowd=np.zeros(len(image), dtype=np.bool_),
        sources=sources,
        problems=[*problems, *_lost(labels, root)],
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


def _lost(labels: Sequence[str], root: str) -> list[Problem]:
    """Return label files beside those of the images that belong to none of them."""
    wanted: dict[str, set[str]] = {}
    for path in labels:
        parent, file = os.path.split(path)
        wanted.setdefault(parent, set()).add(file)
    lost = []
    for parent, files in wanted.items():
        texts = os.listdir(parent) if os.path.isdir(parent) else []  # noqa: PTH112, PTH208
        others = [os.path.join(parent, file) for file in texts if file.endswith(".txt") and file not in files]  # noqa: PTH118
        lost += [path for path in others if _holds_objects(path)]
    return [Problem("lost-labels", path) for path in relative_to(root, sorted(lost))]


def _holds_objects(path: str) -> bool:
    """Tell whether the first line of a text file is an object: those of classes.txt and README.txt are not."""
    try:
        return any(parse_line(line) for _, line in _lines(path, [])[:1])
    except AnnotationError:
        return False
