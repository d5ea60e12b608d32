"""The part of a split that its data set keeps."""

from dataclasses import replace

import numpy as np

from detlit.data.check.records import Split
from detlit.data.datasets.annotated import AnnotatedDataset, select_classes

__all__ = ["select"]


def select(split: Split, dataset: AnnotatedDataset) -> Split:
    """Return the images, classes and objects that ``classes``, ``ignore_empty`` and ``max_samples`` leave.

    What could not be read stays, wherever it is: it stops the data set from being read.

    Args:
        split: all that the annotations say.
        dataset: what they are read for.

    Raises:
        DatasetError: a class to keep is not declared.
    """
    if dataset.classes is not None:
        split = _with_classes(split, select_classes(split.class_names, dataset.classes, split.source))
    counts = np.bincount(split.image, minlength=len(split.images))
    chosen = np.flatnonzero(counts > 0) if dataset.ignore_empty else np.arange(len(split.images))
    chosen = chosen[: dataset.max_samples]
    return split if len(chosen) == len(split.images) else _with_images(split, chosen.tolist())


def _with_classes(split: Split, renamed: dict[str, str]) -> Split:
    """Return the split with its objects of some classes, under their new names."""
    names = tuple(dict.fromkeys(renamed.values()))
    labels = np.array([names.index(renamed[name]) if name in renamed else -1 for name in split.class_names], np.int64)
    split = _with_objects(split, np.flatnonzero(labels[split.labels] >= 0).tolist())
    new = labels[split.labels]
    rows = split.rows
    if rows is not None:
        rows = [{**row, "category_id": label + 1} for row, label in zip(rows, new.tolist(), strict=True)]
    return replace(split, class_names=names, class_ids=(), labels=new, rows=rows)


def _with_images(split: Split, chosen: list[int]) -> Split:
    """Return the split with the images at some positions, and their objects."""
    position = np.full(len(split.images), -1, dtype=np.int64)
    position[chosen] = np.arange(len(chosen))
    split = _with_objects(split, np.flatnonzero(position[split.image] >= 0).tolist())
    return replace(
        split,
        images=[split.images[number] for number in chosen],
        paths=[split.paths[number] for number in chosen],
        sizes=split.sizes[chosen],
        image=position[split.image],
        image_rows=None if split.image_rows is None else [split.image_rows[number] for number in chosen],
    )


def _with_objects(split: Split, chosen: list[int]) -> Split:
    return replace(
        split,
        image=split.image[chosen],
        labels=split.labels[chosen],
        boxes=split.boxes[chosen],
        iscrowd=split.iscrowd[chosen],
        sources=[split.sources[number] for number in chosen],
        rows=None if split.rows is None else [split.rows[number] for number in chosen],
    )
