"""The COCO protocol as pycocotools computes it: the cross-check of our own."""

import contextlib
import io
from typing import Any

import numpy as np

from detlit.metrics.average_precision import Evaluation
from detlit.metrics.matching import Settings
from detlit.metrics.tables import DetectionTable, ObjectTable

__all__ = ["evaluate_with_pycocotools"]


def evaluate_with_pycocotools(detections: DetectionTable, objects: ObjectTable) -> Evaluation:
    """Return what :func:`~detlit.metrics.average_precision.evaluate` returns, computed by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    settings = Settings()
    labels = np.unique(objects.label).astype(np.int64)
    num_images = 1 + max((int(table.image[-1]) for table in (detections, objects) if len(table)), default=0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = {
            "images": [{"id": image} for image in range(num_images)],
            "categories": [{"id": label} for label in labels.tolist()],
            "annotations": _annotations(objects),
        }
        found.dataset = {**truth.dataset, "annotations": _results(detections)}
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return Evaluation(settings, labels, evaluation.eval["precision"][..., -1], evaluation.eval["recall"])


def _annotations(objects: ObjectTable) -> list[dict[str, Any]]:
    """Return the objects as entries of a COCO file; their ids start at 1: pycocotools takes 0 for no match."""
    columns = (objects.image, objects.label, objects.iscrowd, objects.area, objects.xywh)
    return [
        {"id": number, "image_id": image, "category_id": label, "iscrowd": int(crowd), "area": area, "bbox": xywh}
        for number, (image, label, crowd, area, xywh) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]


def _results(detections: DetectionTable) -> list[dict[str, Any]]:
    """Return the detections as pycocotools' ``loadRes`` makes them of a results file."""
    columns = (detections.image, detections.label, detections.score, detections.xywh)
    return [
        {"id": number, "image_id": image, "category_id": label, "score": score, "bbox": xywh}
        | {"area": xywh[2] * xywh[3], "iscrowd": 0}
        for number, (image, label, score, xywh) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]
