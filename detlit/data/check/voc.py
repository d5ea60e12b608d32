"""Pascal VOC files, read as far as they can be read."""

import os
from collections.abc import Sequence
from typing import Literal

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
    files: Sequence[str | None],
    difficult: Literal["ignore", "keep", "drop"] = "ignore",
    one_based: bool = False,
) -> Split:
    """Return what xml files say, and what in them cannot be read.

    Args:
        name: of the split.
        source: what messages call the annotations.
        class_names: the classes; ``None`` takes those that occur, in alphabetic order.
        images: names of the images.
        paths: where they are.
        files: the xml file of each image, if it has one.
        difficult: as in :class:`~detlit.data.datasets.voc.VocDataset`.
        one_based: pixels are counted from 1.
    """
    problems: list[Problem] = []
    annotations = [_read(file, problems) for file in files]
    names = tuple(
        sorted({item for annotation in annotations for item in annotation.names})
        if class_names is None
        else class_names
    )
    label_of = {item: label for label, item in enumerate(names)}
    image, labels, boxes, crowds, sources = [], [], [], [], []
    for position, annotation in enumerate(annotations):
        for number, (item, box, hard) in enumerate(
            zip(annotation.names, annotation.boxes, annotation.difficult, strict=True), 1
        ):
            if item not in label_of:
                place = f"{os.path.basename(str(files[position]))} object {number}"  # noqa: PTH119
                problems.append(Problem("undeclared-class", place, repr(item)))
            elif not (hard and difficult == "drop"):
                image.append(position)
                labels.append(label_of[item])
                boxes.append(box)
                crowds.append(hard and difficult == "ignore")
                sources.append(f"object {number}")
    return Split(
        name=name,
        source=source,
        format="voc",
        class_names=names,
        class_ids=(),
        images=list(images),
        paths=list(paths),
        sizes=np.array([annotation.size or (0, 0) for annotation in annotations], dtype=np.int64).reshape(-1, 2),
        image=np.array(image, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4) - ([1, 1, 0, 0] if one_based else 0),
        iscrowd=np.array(crowds, dtype=np.bool_),
        sources=sources,
        problems=problems,
    )


def _read(file: str | None, problems: list[Problem]) -> VocAnnotation:
    """Return what a file says; nothing if there is none, and nothing and a problem if it cannot be read."""
    if file is None:
        return VocAnnotation()
    try:
        return read_voc_file(file)
    except DatasetError as error:
        reason = str(error).removeprefix(f"{file}: ").removeprefix(f"annotation file {file} ").removesuffix(".")
        problems.append(Problem("malformed-record", os.path.basename(file), reason))  # noqa: PTH119
        return VocAnnotation()
