"""Any data set, through what it loads."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.data.check.records import Problem, Split
from detlit.data.datasets.base import DetectionDataset
from detlit.errors import ImageReadError

__all__ = ["collect_dataset", "join"]


def collect_dataset(name: str, dataset: DetectionDataset) -> Split:
    """Return what the targets of a data set say. Sizes of images are known to the scan only.

    Raises:
        DatasetError: it cannot be set up.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is found here too
        dataset.setup()
    problems: list[Problem] = []
    image, labels, boxes, crowds, paths = [], [], [], [], []
    names = tuple(dataset.class_names)
    for index in range(len(dataset)):
        truth = _load(dataset, index, problems)
        path = str(truth.get("path", ""))
        paths.append(path if os.path.isfile(path) else "")  # noqa: PTH113 - some name items of an archive
        own_labels = np.asarray(truth.get("labels", ()), dtype=np.int64).reshape(-1)
        own_boxes = np.asarray(truth.get("boxes", ()), dtype=np.float64).reshape(-1, 4)
        own_crowds = np.asarray(truth.get("iscrowd", np.zeros(len(own_labels))), dtype=np.bool_)
        if not len(own_boxes) == len(own_labels) == len(own_crowds):
            problems.append(
                Problem("malformed-record", f"item {index}", f"{len(own_boxes)} boxes, {len(own_labels)} labels")
            )
            continue
        declared = (own_labels >= 0) & (own_labels < len(names))
        problems += [Problem("undeclared-class", f"item {index}", f"label {x}") for x in own_labels[~declared].tolist()]
        image.append(np.full(int(declared.sum()), index))
        labels.append(own_labels[declared])
        boxes.append(own_boxes[declared])
        crowds.append(own_crowds[declared])
    owners = np.concatenate([*image, np.zeros(0)]).astype(np.int64)
    return Split(
        name=name,
        source=type(dataset).__name__,
        format=type(dataset).__name__,
        class_names=names,
        class_ids=tuple(range(len(names))),
        images=[path or f"item {index}" for index, path in enumerate(paths)],
        paths=paths,
        sizes=np.zeros((len(paths), 2), dtype=np.int64),
        image=owners,
        labels=np.concatenate([*labels, np.zeros(0)]).astype(np.int64),
        boxes=np.concatenate([*boxes, np.zeros((0, 4))]),
        iscrowd=np.concatenate([*crowds, np.zeros(0)]).astype(np.bool_),
        sources=[f"box {number}" for row in image for number in range(len(row))],
        problems=problems,
        load_image=dataset.load_image,
    )


def _load(dataset: DetectionDataset, index: int, problems: list[Problem]) -> dict[str, Any]:
    try:
        return dict(dataset.load_target(index))
    except Exception as error:  # whatever a foreign data set raises is what the user wants to read
        reason = " ".join(str(error).split()) or type(error).__name__
        problems.append(Problem("malformed-record", f"item {index}", reason))
        return {}


def join(name: str, parts: Sequence[Split]) -> Split:
    """Return several splits as one; classes are the same that are called the same.

    Args:
        name: of the whole.
        parts: at least one.
    """
    class_names = tuple(dict.fromkeys(item for part in parts for item in part.class_names))
    label_of = {item: label for label, item in enumerate(class_names)}
    starts = np.cumsum([0, *(len(part.images) for part in parts)])
    loaders = [part.load_image for part in parts]

    def load_image(index: int) -> NDArray[np.uint8]:
        part = int(np.searchsorted(starts, index, side="right")) - 1
        load = loaders[part]
        if load is None:
            raise ImageReadError(f"image {index} of {parts[part].source} is in no file.")
        return load(index - int(starts[part]))

    return Split(
        name=name,
        source=" and ".join(part.source for part in parts),
        format=" and ".join(dict.fromkeys(part.format for part in parts)),
        class_names=class_names,
        class_ids=(),
        images=[image for part in parts for image in part.images],
        paths=[path for part in parts for path in part.paths],
        sizes=np.concatenate([part.sizes for part in parts]),
        image=np.concatenate([part.image + start for part, start in zip(parts, starts, strict=False)]),
        labels=np.concatenate(
            [np.array([label_of[item] for item in part.class_names], dtype=np.int64)[part.labels] for part in parts]
        ),
        boxes=np.concatenate([part.boxes for part in parts]),
        iscrowd=np.concatenate([part.iscrowd for part in parts]),
        sources=[source for part in parts for source in part.sources],
        problems=[problem for part in parts for problem in part.problems],
        unlisted=tuple(file for part in parts for file in part.unlisted),
        load_image=load_image,
    )
