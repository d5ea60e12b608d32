"""The COCO metric against pycocotools, hand-sized truths and several processes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detlit.metrics import COCO_STATISTICS, CocoMeanAveragePrecision
from detlit.structures import Detection, Target
from tests.processes import run_in_processes

Images = list[tuple[Detection, Target]]


def detection(boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float]) -> Detection:
    return Detection(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


def target(boxes: Sequence[Sequence[float]], labels: Sequence[int], index: int) -> Target:
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        dataset_index=index,
    )


def perfect_images(count: int = 10) -> Images:
    """Images found perfectly: two objects of classes 0 and 2 (1 is never used), every third image empty."""
    images: Images = []
    for index in range(count):
        boxes = [] if index % 3 == 2 else [[5.0, 5.0, 40.0 + index, 50.0], [60.0, 10.0, 90.0, 30.0 + index]]
        labels = [0, 2][: len(boxes)]
        images.append((detection(boxes, labels, [0.9, 0.8][: len(boxes)]), target(boxes, labels, index)))
    return images


def scattered_images(count: int = 40, seed: int = 0) -> Images:
    """Random objects and jittered detections with crowds, tied scores, given areas and more than 100 detections."""
    rng = np.random.default_rng(seed)
    images: Images = []
    for index in range(count):
        number = int(rng.integers(0, 12))
        corners = rng.uniform(0, 300, (number, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(4, 150, (number, 2))], axis=1)
        labels = rng.integers(0, 5, number)
        found = np.repeat(boxes, 14, axis=0) + rng.normal(0, 6, (14 * number, 4))
        truth = target(boxes.tolist(), labels.tolist(), index)
        truth["orig_boxes"] = torch.from_numpy(boxes)
        truth["orig_labels"] = torch.from_numpy(labels)
        truth["orig_iscrowd"] = torch.from_numpy(rng.uniform(size=number) < 0.1)
        truth["orig_area"] = torch.from_numpy((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * rng.uniform(0.4, 1, number))
        scores = np.round(rng.uniform(size=14 * number), 2)
        classes = np.where(rng.uniform(size=14 * number) < 0.8, np.repeat(labels, 14), 6)
        images.append((detection(found.tolist(), classes.tolist(), scores.tolist()), truth))
    return images


def score(images: Images, batch_size: int) -> dict[str, float]:
    metric = CocoMeanAveragePrecision()
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        metric.update([found for found, _ in chunk], [truth for _, truth in chunk])
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8])
def test_a_perfect_detector_scores_exactly_one(batch_size: int) -> None:
    scores = score(perfect_images(), batch_size)
    assert scores["map"] == scores["map_50"] == scores["map_75"] == 1.0


def test_equals_pycocotools_on_json_files(tmp_path: Path) -> None:
    """The same images written to COCO json files and scored by pycocotools alone."""
    images = scattered_images()
    annotations, results = [], []
    for found, truth in images:
        index = truth["dataset_index"]
        for box, label, crowd, area in zip(
            truth["orig_boxes"].tolist(),
            truth["orig_labels"].tolist(),
            truth["orig_iscrowd"].tolist(),
            truth["orig_area"].tolist(),
            strict=True,
        ):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": label, "iscrowd": int(crowd)}
                | {"area": area, "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
            )
        for (x1, y1, x2, y2), label, value in zip(
            found["boxes"].double().tolist(), found["labels"].tolist(), found["scores"].double().tolist(), strict=True
        ):
            results.append(
                {"image_id": index, "category_id": label, "score": value, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            )
    dataset = {
        "info": {},
        "images": [{"id": truth["dataset_index"]} for _, truth in images],
        "categories": [{"id": label} for label in range(7)],
        "annotations": annotations,
    }
    (tmp_path / "truth.json").write_text(json.dumps(dataset))
    (tmp_path / "results.json").write_text(json.dumps(results))
    truth_file = COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(truth_file, truth_file.loadRes(str(tmp_path / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    scores = score(images, batch_size=7)
    assert 0.05 < scores["map"] < 0.95
    np.testing.assert_allclose(list(scores.values()), evaluation.stats, atol=1e-12, rtol=0)


def test_false_positives_on_empty_images_count() -> None:
    images = perfect_images(4)
    images.append((detection([[0, 0, 50, 50]], [0], [0.99]), target([], [], 4)))
    assert score(images, 2)["map"] < 1.0


def test_an_image_seen_twice_counts_once() -> None:
    images = scattered_images(12)
    assert score(images + images[:3], 4) == score(images, 4)


def test_images_without_an_index_are_all_different() -> None:
    images = perfect_images(3)
    for _, truth in images:
        del truth["dataset_index"]
    assert score(images, 2)["map"] == 1.0


def test_nothing_to_measure_is_minus_one_and_nothing_found_is_zero() -> None:
    empty = detection([], [], [])
    assert set(score([(empty, target([], [], 0))], 1).values()) == {-1.0}
    assert score([(empty, target([[0, 0, 9, 9]], [1], 0))], 1)["map"] == 0.0


def test_reset_forgets() -> None:
    metric = CocoMeanAveragePrecision()
    worst = (detection([[0, 0, 5, 5]], [0], [0.9]), target([[50, 50, 99, 99]], [0], 0))
    metric.update([worst[0]], [worst[1]])
    metric.reset()
    for found, truth in perfect_images():
        metric.update([found], [truth])
    assert metric.compute()["map"] == 1.0


def _score_part(rank: int, parts: list[Images], results: Path) -> None:
    metric = CocoMeanAveragePrecision()
    for found, truth in parts[rank]:
        metric.update([found], [truth])
    values = [metric.compute()[name].item() for name in COCO_STATISTICS]
    (results / f"{rank}.json").write_text(json.dumps(values))


@pytest.mark.distributed
@pytest.mark.parametrize(
    "split",
    [
        lambda images: [images[:11], images[11:]],
        lambda images: [images[:20], images[20:]],
        lambda images: [images, []],
        lambda images: [images[0::2] + images[:1], images[1::2] + images[:1]],
    ],
    ids=["11+10", "20+1", "21+0", "padded"],
)
def test_two_processes_score_what_one_does(split: Callable[[Images], list[Images]], tmp_path: Path) -> None:
    images = scattered_images(21)
    run_in_processes(_score_part, 2, split(images), tmp_path)
    alone = list(score(images, 4).values())
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
