"""Mean average precision by the COCO protocol (https://cocodataset.org/#detection-eval), equal to pycocotools."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.metrics.base import DetectionMetric
from detlit.metrics.gather import gather_rows, is_distributed
from detlit.structures import Detection, Target

__all__ = ["COCO_STATISTICS", "CocoMeanAveragePrecision"]

COCO_STATISTICS = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large",
    "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large",
)  # fmt: skip
"""The twelve numbers of the COCO summary, in pycocotools' order."""


class CocoMeanAveragePrecision(DetectionMetric):
    """The twelve COCO statistics over every image of every rank, each image counted once.

    Ground truth and areas stay float64 in original pixels, crowds and degenerate boxes included, because the protocol
    counts them. Images without objects count: what is detected on them is a false positive. Statistics without any
    ground truth to measure (no small objects, say) are -1, as pycocotools defines them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clear()

    def _clear(self) -> None:
        self._detections: list[Tensor] = []  # (K, 7) image, label, score, box: the image numbered as it came
        self._objects: list[Tensor] = []  # (N, 8) image, label, iscrowd, area, box
        self._dataset_indices: list[int] = []  # of each image as it came

    def reset(self) -> None:
        """Forget every image."""
        super().reset()
        self._clear()

    def update(self, detections: Sequence[Detection], targets: Sequence[Target]) -> None:
        """Add images; see :meth:`DetectionMetric.update`.

        A target without ``dataset_index`` is taken for an image of its own.
        """
        for detection, target in zip(detections, targets, strict=True):
            image = len(self._dataset_indices)
            self._dataset_indices.append(int(target.get("dataset_index", -1)))
            columns = (detection["labels"], detection["scores"], detection["boxes"])
            self._detections.append(_rows(image, columns))
            self._objects.append(_rows(image, _ground_truth(target)))

    def compute(self) -> dict[str, Tensor]:
        """Return ``{"map": ..., "map_50": ..., ...}``, float64 scalars; the keys are :data:`COCO_STATISTICS`."""
        tables = self._gather()
        statistics = torch.zeros(len(COCO_STATISTICS), dtype=torch.float64)
        if not is_distributed() or torch.distributed.get_rank() == 0:
            statistics = torch.from_numpy(evaluate_coco(*tables))
        if is_distributed():
            statistics = statistics.to(self._collective_device())
            torch.distributed.broadcast(statistics, 0)
        return dict(zip(COCO_STATISTICS, statistics.cpu(), strict=True))

    def _gather(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Return detections, objects and the number of images of all ranks.

        Repeated images are left out. The others are numbered in the order of the data set, because the order decides
        between detections of equal score: the result does not depend on how the images were spread.
        """
        images = torch.tensor(self._dataset_indices, dtype=torch.float64).reshape(-1, 1)
        tables = [
            gather_rows(table, self._collective_device())
            for table in (_stack(self._detections, 7), _stack(self._objects, 8), images)
        ]
        all_indices = torch.cat(tables[2])[:, 0].long()
        numbers, count = _number_images(all_indices.tolist())
        per_rank = torch.split(numbers, [len(indices) for indices in tables[2]])
        detections, objects = (
            torch.cat([_renumber(rows, new) for rows, new in zip(table, per_rank, strict=True)]) for table in tables[:2]
        )
        return detections.numpy(), objects.numpy(), count

    def _collective_device(self) -> torch.device:
        """Where the process group can reduce: the GPU for NCCL, otherwise the CPU."""
        nccl = is_distributed() and torch.distributed.get_backend() == "nccl"
        return self.device if nccl else torch.device("cpu")


def _rows(image: int, columns: Sequence[Tensor]) -> Tensor:
    """Return ``(N, 1 + ...)`` float64 rows that start with the image's number, on the CPU."""
    wide = [column.detach().cpu().double() for column in columns]
    wide = [column if column.ndim == 2 else column[:, None] for column in wide]
    return torch.cat([torch.full((len(wide[0]), 1), float(image), dtype=torch.float64), *wide], dim=1)


def _stack(tables: Sequence[Tensor], width: int) -> Tensor:
    return torch.cat(list(tables)) if tables else torch.zeros(0, width, dtype=torch.float64)


def _number_images(dataset_indices: list[int]) -> tuple[Tensor, int]:
    """Return a number for each image and how many there are: ascending with the index, -1 for a repeated one.

    Images without an index (-1) are all different and come last.
    """
    first: dict[tuple[bool, int], int] = {}
    for position, index in enumerate(dataset_indices):
        first.setdefault((False, index) if index >= 0 else (True, position), position)
    numbers = torch.full((len(dataset_indices),), -1, dtype=torch.float64)
    for number, (_, position) in enumerate(sorted(first.items())):
        numbers[position] = number
    return numbers, len(first)


def _renumber(rows: Tensor, new_number: Tensor) -> Tensor:
    """Give rows the new numbers of their images and drop those whose image was dropped (-1)."""
    numbers = new_number[rows[:, 0].long()]
    rows = torch.cat([numbers[:, None], rows[:, 1:]], dim=1)
    return rows[numbers >= 0]


def _ground_truth(target: Target) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return labels, iscrowd, area and boxes of a target in original pixels."""
    if "orig_boxes" in target:
        return target["orig_labels"], target["orig_iscrowd"], target["orig_area"], target["orig_boxes"]
    boxes, labels = target["boxes"].double(), target["labels"]
    iscrowd = target.get("iscrowd", torch.zeros(len(labels), dtype=torch.bool, device=labels.device))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return labels, iscrowd, area, boxes


def evaluate_coco(
    detections: NDArray[np.float64], objects: NDArray[np.float64], num_images: int
) -> NDArray[np.float64]:
    """Run pycocotools on flat tables.

    Args:
        detections: ``(K, 7)`` image, label, score, x1, y1, x2, y2.
        objects: ``(N, 8)`` image, label, iscrowd, area, x1, y1, x2, y2.
        num_images: images are numbered from 0.

    Returns:
        ``(12,)`` the statistics of :data:`COCO_STATISTICS`; -1 where there is nothing to measure.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not len(objects):
        return np.full(len(COCO_STATISTICS), -1.0)
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = _coco_dataset(objects, num_images)
        ground_truth.createIndex()
        found = COCO()
        found.dataset = {**ground_truth.dataset, "annotations": _coco_results(detections)}
        found.createIndex()
        evaluation = COCOeval(ground_truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    statistics: NDArray[np.float64] = evaluation.stats
    return statistics


def _coco_dataset(objects: NDArray[np.float64], num_images: int) -> dict[str, Any]:
    """Return the objects as a COCO json; the annotation ids start at 1: pycocotools takes 0 for no match."""
    return {
        "images": [{"id": image} for image in range(num_images)],
        "categories": [{"id": label} for label in np.unique(objects[:, 1]).astype(int).tolist()],
        "annotations": [
            {
                "id": number,
                "image_id": int(image),
                "category_id": int(label),
                "iscrowd": int(iscrowd),
                "area": area,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            for number, (image, label, iscrowd, area, x1, y1, x2, y2) in enumerate(objects.tolist(), start=1)
        ],
    }


def _coco_results(detections: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return the detections as pycocotools' ``loadRes`` would make them of a results json."""
    return [
        {
            "id": number,
            "image_id": int(image),
            "category_id": int(label),
            "score": score,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        for number, (image, label, score, x1, y1, x2, y2) in enumerate(detections.tolist(), start=1)
    ]
