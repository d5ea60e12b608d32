"""The COCO metric against pycocotools, hand-sized truths and several processes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detlit.errors import AnnotationError, ConfigurationError, DetlitError
from detlit.metrics import COCO_STATISTICS, CocoMeanAveragePrecision, DetectionMetric, coco
from detlit.metrics.gather import gather_arrays
from detlit.structures import Detection, Target
from tests.processes import run_in_processes

Images = list[tuple[Detection, Target]]
BACKENDS: tuple[Literal["detlit"], Literal["pycocotools"]] = ("detlit", "pycocotools")
GOLDEN = Path(__file__).parents[1] / "golden"


def golden_images(case: str) -> Images:
    """Return the detections and objects of a data set of tests/golden/metrics.npz."""
    with np.load(GOLDEN / "metrics.npz") as arrays:
        truth, found = torch.from_numpy(arrays[f"{case}_gt"]), torch.from_numpy(arrays[f"{case}_pred"])
    images: Images = []
    for index in range(14):
        mine, theirs = found[found[:, 0] == index], truth[truth[:, 0] == index]
        images.append(
            (
                Detection(boxes=mine[:, 1:5], scores=mine[:, 5], labels=mine[:, 6].long()),
                Target(boxes=theirs[:, 2:6], labels=theirs[:, 1].long(), iscrowd=theirs[:, 6] > 0, dataset_index=index),
            )
        )
    return images


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
    return metric_of(images, CocoMeanAveragePrecision(), batch_size)


def metric_of(images: Images, metric: DetectionMetric, batch_size: int = 4) -> dict[str, float]:
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        metric.update([found for found, _ in chunk], [truth for _, truth in chunk])
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8])
def test_a_perfect_detector_scores_exactly_one(batch_size: int) -> None:
    scores = score(perfect_images(), batch_size)
    assert scores["map"] == scores["map_50"] == scores["map_75"] == 1.0


@pytest.mark.parametrize("ids_from", [1, 7], ids=["ordered", "in another order than the data set"])
def test_equals_pycocotools_on_json_files(ids_from: int, tmp_path: Path) -> None:
    """The same images written to COCO json files and scored by pycocotools alone, which takes them by their ids."""
    images = scattered_images()
    for index, (_, truth) in enumerate(images):
        truth["image_id"] = index * ids_from % 41
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for found, truth in images:
        index = truth["image_id"]
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
        "images": [{"id": truth["image_id"]} for _, truth in images],
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


def test_the_backends_agree_on_every_class() -> None:
    images = scattered_images()
    ours, theirs = (metric_of(images, CocoMeanAveragePrecision(per_class=True, backend=b)) for b in BACKENDS)
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-12), name
    assert len({ours[f"map/class_{label}"] for label in range(5)}) == 5


def test_pycocotools_computes_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(COCOeval, "evaluate", lambda self: pytest.fail("pycocotools ran"))
    metric_of(perfect_images(), CocoMeanAveragePrecision())
    with pytest.raises(pytest.fail.Exception, match="pycocotools ran"):
        metric_of(perfect_images(), CocoMeanAveragePrecision(backend="pycocotools"))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="backend='fast' is unknown: choose 'detlit' or 'pycocotools'"):
        CocoMeanAveragePrecision(backend="fast")  # type: ignore[arg-type]


def test_classes_are_logged_by_name_and_only_when_asked_for() -> None:
    """A class named like a statistic does not overwrite it; one without objects is -1."""
    images = perfect_images()
    assert list(metric_of(images, CocoMeanAveragePrecision())) == list(COCO_STATISTICS)
    values = metric_of(images, CocoMeanAveragePrecision(per_class=True, class_names=["50", "cat", "dog", "eel"]))
    assert list(values)[12:] == [
        f"{kind}/{name}" for name in ("50", "cat", "dog", "eel") for kind in ("map", "mar_100")
    ]
    assert [values[f"map/{name}"] for name in ("50", "cat", "dog", "eel")] == [1.0, -1.0, 1.0, -1.0]


def test_a_report_shares_what_compute_has_gathered_and_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = CocoMeanAveragePrecision(class_names=["a", "b", "c"])
    for found, truth in perfect_images(10):
        metric.update([found], [truth])
    values = metric.compute()
    monkeypatch.setattr(coco, "evaluate", lambda *_: pytest.fail("matched twice"))
    report = metric.compute_report(score_threshold=0.85)
    assert report.statistics == {name: value.item() for name, value in values.items()}
    assert report.num_images == 10
    assert report.dataset_index.tolist() == list(range(10))
    assert [quality.at_threshold.recall for quality in report.classes[::2]] == [1.0, 0.0]
    assert [quality.name for quality in report.classes] == ["a", "b", "c"]
    a, b, c = metric.best_score_thresholds()
    assert report.best_score_thresholds == (a, b, c)
    assert 0.0 < c < 0.8
    assert 0.0 < a < 0.9
    assert b == report.overall.best.score_threshold


def test_images_added_after_a_report_are_in_the_next() -> None:
    metric = CocoMeanAveragePrecision()
    images = perfect_images(6)
    for found, truth in images[:3]:
        metric.update([found], [truth])
    assert metric.compute_report().num_images == 3
    for found, truth in images[3:]:
        metric.update([found], [truth])
    assert metric.compute_report().num_images == 6


def test_a_call_returns_the_batch_and_keeps_the_whole() -> None:
    metric = CocoMeanAveragePrecision()
    missed = (detection([], [], []), target([[0, 0, 9, 9]], [0], 1))
    found = (detection([[0, 0, 9, 9]], [0], [0.9]), target([[0, 0, 9, 9]], [0], 0))
    assert metric([missed[0]], [missed[1]])["map"] == 0.0
    assert metric([found[0]], [found[1]])["map"] == pytest.approx(1.0)
    assert metric.compute()["mar_100"] == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_detections_of_any_float_type_count(dtype: torch.dtype) -> None:
    found = detection([[0, 0, 8, 8]], [0], [0.5])
    found["boxes"], found["scores"] = found["boxes"].to(dtype), found["scores"].to(dtype).requires_grad_()
    assert score([(found, target([[0, 0, 8, 8]], [0], 0))], 1)["map"] == pytest.approx(1.0)


def test_targets_with_and_without_original_boxes_fit_in_one_batch() -> None:
    plain, full = target([[0, 0, 8, 8]], [0], 0), target([[50, 50, 60, 60]], [0], 1)
    full["orig_boxes"] = torch.tensor([[0, 0, 8, 8]], dtype=torch.float64)
    full["orig_labels"], full["orig_area"] = torch.tensor([0]), torch.tensor([64.0], dtype=torch.float64)
    full["orig_iscrowd"] = torch.tensor([False])
    found = detection([[0, 0, 8, 8]], [0], [0.5])
    assert score([(found, plain), (found, full)], 2)["map"] == pytest.approx(1.0)


def test_crowds_of_plain_targets_are_crowds() -> None:
    truth = target([[0, 0, 100, 100], [200, 0, 210, 10]], [0, 0], 0)
    truth["iscrowd"] = torch.tensor([True, False])
    found = detection([[0, 0, 50, 50], [50, 50, 90, 90], [200, 0, 210, 10]], [0, 0, 0], [0.9, 0.8, 0.7])
    assert score([(found, truth)], 1)["map"] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_detections_that_are_no_numbers_are_refused(value: float) -> None:
    images = perfect_images(2)
    images[1][0]["scores"][0] = value
    with pytest.raises(DetlitError, match=r"image 1 of a batch \(dataset index 1\) has a detection that is NaN"):
        score(images, 2)


def test_objects_that_are_no_numbers_are_refused() -> None:
    images = perfect_images(2)
    images[0][1]["boxes"][1, 0] = float("nan")
    with pytest.raises(AnnotationError, match=r"image 0 of a batch \(dataset index 0\) has an object that is NaN"):
        score(images, 2)


def test_a_negative_label_is_refused() -> None:
    images = perfect_images(2)
    images[0][0]["labels"][0] = -1
    with pytest.raises(DetlitError, match="a negative label"):
        score(images, 2)


def test_counts_that_differ_are_refused() -> None:
    (found, truth), (other, _) = perfect_images(2)
    metric = CocoMeanAveragePrecision()
    with pytest.raises(ConfigurationError, match="2 detections for 1 targets: give the metric one of each"):
        metric.update([found, other], [truth])
    other["scores"] = other["scores"][:1]
    with pytest.raises(ConfigurationError, match="image 1 of a batch has detections with columns of 2, 1 and 2 rows"):
        metric.update([found, other], [truth, truth])


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


@pytest.mark.parametrize("case", ["basic", "crowd"])
def test_golden_data_sets_score_what_pycocotools_gave_them(case: str) -> None:
    expected = json.loads((GOLDEN / "metrics.json").read_text())[case]["pycocotools"]
    metric = CocoMeanAveragePrecision()
    values = metric_of(golden_images(case), metric)
    np.testing.assert_allclose(list(values.values()), expected["stats"], rtol=0, atol=1e-12)
    evaluation = metric.evaluation()
    precision, recall = (np.array(expected[name])[:, evaluation.labels] for name in ("ap_T_K", "recall_T_K"))
    np.testing.assert_allclose(evaluation.precision[..., 0].mean(axis=1), precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(evaluation.recall[:, :, 0, -1], recall, rtol=0, atol=1e-12)


def _score_part(rank: int, parts: list[Images], results: Path) -> None:
    metric = CocoMeanAveragePrecision(per_class=True)
    for found, truth in parts[rank]:
        metric.update([found], [truth])
    with mock.patch.object(torch.distributed, "all_gather", wraps=torch.distributed.all_gather) as all_gather:
        outcome = _everything_of(metric)
    (results / f"{rank}.json").write_text(json.dumps({**outcome, "collectives": all_gather.call_count}))


def _everything_of(metric: CocoMeanAveragePrecision) -> dict[str, Any]:
    values = {name: value.item() for name, value in metric.compute().items()}
    return {"values": values, "report": metric.compute_report().to_dict()}


SPLITS: dict[str, Callable[[Images], list[Images]]] = {
    "alone": lambda images: [images],
    "11+10": lambda images: [images[:11], images[11:]],
    "20+1": lambda images: [images[:20], images[20:]],
    "21+0": lambda images: [images, []],
    "padded": lambda images: [images[0::2], images[1::2] + images[:1]],
    "7+7+7": lambda images: [images[0::3], images[1::3], images[2::3]],
    "20+1+0": lambda images: [images[:20], images[20:], []],
    "padded on three": lambda images: [images[0::3] + images[:1], images[1::3] + images[:1], images[2::3] + images[:1]],
    "0+21+0, shuffled": lambda images: [[], images[::-1], []],
    "nothing": lambda images: [[], []],
}


@pytest.mark.distributed
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")  # a rank without images has not updated
def test_processes_score_what_one_does(split: str, tmp_path: Path) -> None:
    images = scattered_images(21)
    parts = SPLITS[split](images)
    run_in_processes(_score_part, len(parts), parts, tmp_path)
    whole = [] if split == "nothing" else images
    metric = CocoMeanAveragePrecision(per_class=True)
    for found, truth in whole:
        metric.update([found], [truth])
    alone = json.loads(json.dumps(_everything_of(metric)))
    for rank in range(len(parts)):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        assert result.pop("collectives") == (0 if len(parts) == 1 else 2)
        assert result == alone


def _gather_part(rank: int) -> None:
    part = gather_arrays([np.full((rank, 2), rank, dtype=np.int64), np.ones((3 - rank, 1))], torch.device("cpu"))
    assert [[len(array) for array in arrays] for arrays in part] == [[0, 3], [1, 2], [2, 1]]
    assert all((arrays[0] == other).all() for other, arrays in enumerate(part))


@pytest.mark.distributed
def test_arrays_of_different_lengths_arrive_whole() -> None:
    run_in_processes(_gather_part, 3)
