"""Real annotations, with crowds and mask areas: what the metric gets through the data set, against the file itself."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detlit.data import CocoDataset, collate
from detlit.metrics import CocoMeanAveragePrecision
from detlit.structures import Detection, Target


def detect(target: Target, rng: np.random.Generator) -> Detection:
    """Return what a fair detector might: objects misplaced, repeated, missed, or taken for another class."""
    boxes, labels = target["orig_boxes"].numpy().repeat(3, axis=0), target["orig_labels"].numpy().repeat(3)
    seen = rng.uniform(size=len(boxes)) < 0.8
    boxes, labels = boxes[seen], labels[seen]
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + rng.normal(0, 0.08, boxes.shape) * sides
    labels = np.where(rng.uniform(size=len(labels)) < 0.8, labels, rng.integers(0, 80, len(labels)))
    scores = torch.from_numpy(np.round(rng.uniform(size=len(labels)), 2)).float()
    return Detection(boxes=torch.from_numpy(boxes).float(), scores=scores, labels=torch.from_numpy(labels))


def as_results(found: Detection, image_id: int, category_ids: list[int]) -> list[dict[str, object]]:
    """Return detections as entries of a COCO results file."""
    boxes = found["boxes"].double()
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[label], "score": score, "bbox": box}
        for box, score, label in rows
    ]


@pytest.mark.filterwarnings("ignore:.*without area")
def test_coco_scores_what_pycocotools_reads_from_its_file(data_folder: Path, tmp_path: Path) -> None:
    root, annotations = data_folder / "coco_tiny", "annotations/instances_val2017.json"
    data = CocoDataset(annotations, "val2017", root=str(root))
    rng = np.random.default_rng(0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / annotations))
    category_ids = sorted(truth.getCatIds())
    metric, results = CocoMeanAveragePrecision(), []
    for index in range(len(data)):
        _, target = data[index]
        detection = detect(target, rng)
        metric.update([detection], collate([(torch.zeros(3, 32, 32), target)]).targets)
        results += as_results(detection, target["image_id"], category_ids)
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = [value.item() for value in metric.compute().values()]
    np.testing.assert_allclose(ours, evaluation.stats, rtol=0, atol=1e-12)
    assert all(0.1 < value < 0.9 for value in ours)
