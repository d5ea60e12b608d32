"""Any data set, through what it loads."""

from typing import Any

import numpy as np

from detlit.data.check.records import Problem, Split
from detlit.data.datasets import DetectionDataset

__all__ = ["collect_dataset"]


def collect_dataset(name: str, dataset: DetectionDataset) -> Split:
    """Return what the targets of a data set say. Sizes of images are known to the scan only."""
    problems: list[Problem] = []
    image, labels, boxes, crowds, paths = [], [], [], [], []
    names = tuple(dataset.class_names)
    for index in range(len(dataset)):
        truth = _load(dataset, index, problems)
        paths.append(str(truth.get("path", "")))
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
