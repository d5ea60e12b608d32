"""Pascal VOC files, read as far as they can be read."""

import os
from collections.abc import Sequence

import numpy as np

from detlit.data.check.records import Problem, Split
from detlit.data.datasets.voc_file import VocAnnotation, read_voc_file
from detlit.errors import DatasetError

__all__ = ["collect_voc"]


def collect_voc(
    name: str,
    source: str,
    class_names: Sequence[str] | None,
    images: Sequence[str],
    paths: Sequence[str],
    files: Sequence[str],
) -> Split:
    """Return what xml files say, and what in them cannot be read.

    Args:
        name: of the split.
        source: what messages call the annotations.
        class_names: the classes; ``None`` takes those that occur, in alphabetic order.
        images: names of the images.
        paths: where they are.
        files: the xml file of each image.
    """
    problems: list[Problem] = []
    annotations = [_read(file, problems) for file in files]
    occurring = sorted({item for annotation in annotations for item in annotation.names})
    names = tuple(occurring if class_names is None else class_names)
    label_of = {item: label for label, item in enumerate(names)}
    image, labels, boxes, sources = [], [], [], []
    for position, annotation in enumerate(annotations):
        for number, (item, box) in enumerate(zip(annotation.names, annotation.boxes, strict=True), 1):
            place = f"object {number}"
            if item not in label_of:
                file = os.path.basename(files[position])  # noqa: PTH119
                problems.append(Problem("undeclared-class", f"{file}, object {number}", repr(item), images[position]))
                continue
            image.append(position)
            labels.append(label_of[item])
            boxes.append(box)
            sources.append(place)
    return Split(
        name=name,
        source=source,
        format="voc",
        class_names=names,
        class_ids=() if class_names is None else tuple(range(len(names))),
        images=list(images),
        paths=list(paths),
        sizes=np.array([annotation.size or (0, 0) for annotation in annotations], dtype=np.int64).reshape(-1, 2),
        image=np.array(image, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        iscrowd=np.zeros(len(labels), dtype=np.bool_),
        sources=sources,
        problems=problems,
    )


_NOTHING = VocAnnotation("", None, (), (), ())


def _read(file: str, problems: list[Problem]) -> VocAnnotation:
    """Return what a file says; nothing, and a problem, if it cannot be read."""
    try:
        return read_voc_file(file)
    except DatasetError as error:
        reason = str(error).removeprefix(f"{file}: ").removeprefix(f"annotation file {file} ").removesuffix(".")
        problems.append(Problem("malformed-record", os.path.basename(file), reason))  # noqa: PTH119
        return _NOTHING
