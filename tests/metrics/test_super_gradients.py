"""SuperGradients' metrics: its numbers where it is right, ours where it is not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from detlit.errors import ConfigurationError
from detlit.metrics import CocoMeanAveragePrecision, DetectionMetrics
from detlit.module import DetectionModule
from tests.cli.test_lightning import write_config
from tests.metrics.test_coco import (
    GOLDEN,
    detection,
    golden_images,
    metric_of,
    perfect_images,
    scattered_images,
    target,
)
from tests.tiny import tiny_detector

IOU_RANGES: dict[str, Any] = {"50_95": (0.5, 0.95), "50": 0.5, "75": (0.75, 0.75)}

OPTIMISTIC = {
    ("basic", "50_95_st0.1", "Best_score_threshold"): 0.49,
    ("basic", "50_95_st0.5", "Best_score_threshold"): 0.49,
    ("crowd", "50_95_st0.1", "Best_score_threshold_class_0"): 0.63,
    ("crowd", "50_95_st0.5", "Best_score_threshold_class_0"): 0.63,
}
"""Thresholds that SuperGradients chooses by the greatest precision at any higher recall, and ours."""


@pytest.mark.parametrize("case", ["basic", "crowd"])
@pytest.mark.parametrize("iou", IOU_RANGES)
@pytest.mark.parametrize("score", [0.1, 0.5])
def test_equals_super_gradients_but_for_the_documented_differences(case: str, iou: str, score: float) -> None:
    expected = json.loads((GOLDEN / "metrics.json").read_text())[case]["super_gradients"][f"{iou}_st{score}"]
    metric = DetectionMetrics(6, IOU_RANGES[iou], score_thres=score, include_classwise_ap=True)
    values = metric_of(golden_images(case), metric)
    assert list(values) == list(expected)
    for name, value in expected.items():
        if name.endswith(("class_4", "class_5")):  # without objects: SuperGradients says 0
            assert values[name] == -1.0
        elif (case, f"{iou}_st{score}", name) in OPTIMISTIC:
            assert values[name] == pytest.approx(OPTIMISTIC[case, f"{iou}_st{score}", name])
        elif name.startswith(("Precision", "F1")) and score == 0.5:  # interpolated there
            assert value - 6e-3 < values[name] <= value + 1e-6
        else:
            assert values[name] == pytest.approx(value, abs=1e-6), name


def test_precision_is_that_above_the_threshold() -> None:
    """At score 0.5 one of two is right; that the third is right too makes the first two no better."""
    found = detection([[50, 50, 90, 90], [0, 0, 9, 9], [20, 0, 29, 9], [30, 0, 39, 9]], [0] * 4, [0.9, 0.6, 0.4, 0.3])
    truth = target([[0, 0, 9, 9], [20, 0, 29, 9], [30, 0, 39, 9]], [0, 0, 0], 0)
    values = metric_of([(found, truth)], DetectionMetrics(1, 0.5, score_thres=0.5))
    assert values["Precision@0.50"] == 0.5
    assert values["Recall@0.50"] == pytest.approx(1 / 3)
    assert values["F1@0.50"] == pytest.approx(0.4)
    assert values["mAP@0.50"] == pytest.approx(0.75)
    assert values["Best_score_threshold_class_0"] == 0.0


def test_an_iou_on_the_threshold_and_a_score_on_the_threshold_count() -> None:
    images = [(detection([[0, 0, 10, 5]], [0], [0.1]), target([[0, 0, 10, 10]], [0], 0))]
    assert metric_of(images, DetectionMetrics(1, 0.5, score_thres=0.1))["Recall@0.50"] == 1.0
    assert metric_of(images, DetectionMetrics(1, 0.5, score_thres=0.11))["Recall@0.50"] == 0.0


def test_map_is_that_of_coco_with_a_hundred_detections() -> None:
    images = scattered_images()
    ours, coco = metric_of(images, DetectionMetrics(7)), metric_of(images, CocoMeanAveragePrecision())
    assert ours["mAP@0.50:0.95"] == pytest.approx(coco["map"], abs=1e-12)


def test_each_option_changes_something() -> None:
    images = scattered_images()
    plain = metric_of(images, DetectionMetrics(7))
    assert plain != metric_of(images, DetectionMetrics(7, top_k_predictions=1))
    assert plain != metric_of(images, DetectionMetrics(7, recall_thres=[0.0, 0.5]))
    assert plain != metric_of(images, DetectionMetrics(7, score_thres=0.5))
    without = metric_of(images, DetectionMetrics(7, calc_best_score_thresholds=False))
    assert without == {name: plain[name] for name in list(plain)[:4]}
    names = [f"name_{label}" for label in range(7)]
    by_name = metric_of(images, DetectionMetrics(7, class_names=names, include_classwise_ap=True))
    mean = np.mean([value for name, value in by_name.items() if name.startswith("AP@0.50:0.95_name_") and value > -1])
    assert by_name["mAP@0.50:0.95"] == pytest.approx(mean, abs=1e-12)
    assert "Best_score_threshold_name_3" in by_name


def test_what_cannot_be_measured_is_minus_one() -> None:
    alarm = (detection([[0, 0, 9, 9]], [0], [0.9]), target([], [], 0))
    assert set(metric_of([alarm], DetectionMetrics(1)).values()) == {-1.0}


def test_a_perfect_detector_is_perfect() -> None:
    values = metric_of(perfect_images(), DetectionMetrics(3))
    assert all(values[f"{name}@0.50:0.95"] == 1.0 for name in ("mAP", "Precision", "Recall", "F1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iou_thres": (0.9, 0.5)}, r"iou_thres=\(0\.9, 0\.5\) is no range of IoU"),
        ({"iou_thres": (0.5, 0.63)}, r"iou_thres=\(0\.5, 0\.63\) is no range of steps of 0\.05"),
        ({"iou_thres": float("nan")}, "iou_thres=nan is no range of IoU"),
        ({"class_names": ["cat"]}, "1 class names for num_cls=2: give one for each class, or leave num_cls out"),
        ({"num_cls": 0}, "num_cls=0 is no number of classes: leave it out"),
        ({"recall_thres": []}, r"recall_thres=\[\] are no recall levels: choose numbers from 0 to 1"),
        ({"recall_thres": [0.5, 1.5]}, r"recall_thres=\[0\.5, 1\.5\] are no recall levels"),
        ({"recall_thres": [0.5, float("nan")]}, r"recall_thres=\[0\.5, nan\] are no recall levels"),
        ({"recall_thres": [0.5, 0.1]}, r"recall_thres=\[0\.5, 0\.1\] do not ascend: sort them"),
        ({"score_thres": 25}, "score_thres=25 is no threshold: choose a number from 0 to 1"),
        ({"score_thres": float("nan")}, "score_thres=nan is no threshold"),
        ({"top_k_predictions": 0}, "top_k_predictions=0 counts nothing: choose 1 or more"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + message):
        DetectionMetrics(**{"num_cls": 2, **arguments})


def test_names_and_number_of_classes_are_those_of_the_data_unless_given() -> None:
    images = scattered_images()
    expected = metric_of(images, DetectionMetrics(7))
    assert metric_of(images, DetectionMetrics()) == expected  # labels up to 6 occur
    named = DetectionMetrics()
    names = [f"name {label}" for label in range(7)]
    DetectionModule(tiny_detector(7), class_names=names, metric=named).setup("validate")
    assert metric_of(images, named) == {name.replace("class_", "name "): value for name, value in expected.items()}
    other = DetectionMetrics(3)
    DetectionModule(tiny_detector(7), class_names=names, metric=other).setup("validate")
    with pytest.raises(ConfigurationError, match="7 class names for num_cls=3: give one for each class, or leave"):
        metric_of(images, other)


def test_a_config_may_call_it_by_its_bare_name(tmp_path: Path) -> None:
    """In a process of its own: here the class has been imported long since."""
    command = [sys.executable, "-m", "detlit", "fit", "--config", write_config(tmp_path), "--print_config"]
    printed = subprocess.run(
        [*command, "--model.metric=DetectionMetrics", "--model.metric.iou_thres=0.5"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert yaml.safe_load(printed)["model"]["metric"]["init_args"]["iou_thres"] == 0.5
