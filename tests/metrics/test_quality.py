"""Numbers beyond mean average precision: by hand, against counting one by one, and what must always hold."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given

from detlit.errors import ConfigurationError
from detlit.metrics import DetectionTable, ObjectTable, QualityReport, quality_report
from detlit.metrics.calibration import calibrate
from detlit.metrics.errors import ERROR_KINDS
from detlit.metrics.operating_points import best_point, score_curve
from tests.metrics.random_tables import as_lists, tables
from tests.metrics.test_average_precision import detections, objects
from tests.reference import metrics as reference

Tables = tuple[DetectionTable, ObjectTable]


def report_of(drawn: Tables, threshold: float | None = 0.3) -> QualityReport:
    return quality_report(*drawn, num_images=6, score_threshold=threshold)


def street() -> QualityReport:
    """Two images, three classes: person 0, car 1, bus 2.

    In the first one person is found twice, one nearly, and a car taken for a bus; in the second a bus is missed and a
    person seen in the empty sky.
    """
    truth = objects(
        [
            (0, 0, [0, 0, 40, 80]),
            (0, 0, [100, 0, 40, 80]),
            (0, 1, [200, 0, 100, 100]),
            (1, 2, [0, 0, 20, 20]),
        ]
    )
    found = detections(
        [
            (0, 0, 0.9, [0, 0, 40, 80]),  # right
            (0, 0, 0.6, [0, 0, 40, 78]),  # duplicate
            (0, 0, 0.5, [100, 0, 40, 32]),  # IoU 0.4: localisation
            (0, 2, 0.8, [200, 0, 100, 100]),  # classification
            (1, 0, 0.7, [300, 300, 50, 50]),  # background
        ]
    )
    return quality_report(
        found, truth, num_images=2, class_names=["person", "car", "bus", "tram"], score_threshold=0.55
    )


def test_a_street_by_hand() -> None:
    report = street()
    at = report.overall.at_threshold
    assert (at.true_positives, at.false_positives, at.false_negatives) == (1, 3, 3)
    assert (at.precision, at.recall, at.f1) == (0.25, 0.25, 0.25)
    best = report.overall.best
    assert (best.true_positives, best.false_positives, best.f1) == (1, 0, 0.4)
    assert 0.8 < best.score_threshold < 0.9
    assert report.confusion.tolist() == [
        [1, 0, 0, 0, 1],  # a person found, one missed
        [0, 0, 1, 0, 0],  # a car taken for a bus
        [0, 0, 0, 0, 1],  # a bus missed
        [0, 0, 0, 0, 0],
        [2, 0, 0, 0, 0],  # the duplicate and the sky
    ]
    assert report.errors.counts == {
        "classification": 1, "localisation": 1, "both": 0, "duplicate": 1, "background": 1, "missed": 1
    }  # fmt: skip
    assert report.errors.counts_above == {
        "classification": 1, "localisation": 0, "both": 0, "duplicate": 1, "background": 1, "missed": 2
    }  # fmt: skip
    person = 51 / 101  # recall 0.00 to 0.50 at precision 1
    assert report.errors.ap_50 == pytest.approx(person / 3, abs=1e-12)
    gain = report.errors.ap_gain
    assert gain["classification"] == pytest.approx(1 / 3, abs=1e-12)  # the car, which is all there are
    assert gain["localisation"] == pytest.approx(50 / 101 * 0.5 / 3, abs=1e-12)  # the second of 4 persons, the last
    assert gain["missed"] == pytest.approx(1 / 3, abs=1e-12)  # no bus is left
    assert gain["background"] == gain["duplicate"] == gain["both"] == 0.0  # behind all that is right
    assert [quality.name for quality in report.classes] == ["person", "car", "bus", "tram"]
    assert report.classes[0].average.ap_50 == pytest.approx(person, abs=1e-12)
    assert report.classes[3].average.ap == -1.0
    assert math.isnan(report.classes[3].at_threshold.recall)
    sizes = report.overall.sizes
    assert {size: quality.num_objects for size, quality in sizes.items()} == {"small": 1, "medium": 2, "large": 1}
    assert (sizes["small"].ap_50, sizes["large"].ap_50) == (0.0, 0.0)
    assert sizes["medium"].ap_50 == pytest.approx(person, abs=1e-12)


def test_what_a_picture_needs_is_in_the_report() -> None:
    """Kind, box and object of every detection, and the objects that nothing is about."""
    report = street()
    errors = report.errors
    kinds = {
        float(report.detections.score[row]): (kind, thing)
        for row, kind, thing in zip(errors.rows, errors.kind.tolist(), errors.object_row.tolist(), strict=True)
    }
    named = {
        round(score, 2): ("right" if kind == -1 else ERROR_KINDS[kind], thing) for score, (kind, thing) in kinds.items()
    }
    assert named == {
        0.9: ("right", 0),
        0.6: ("duplicate", 0),
        0.5: ("localisation", 1),
        0.8: ("classification", 2),
        0.7: ("background", -1),
    }
    assert errors.missed.tolist() == [3]


def test_the_report_is_plain_data_and_json_reads_it_back() -> None:
    report = street()
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["statistics"]["map_50"] == pytest.approx(51 / 303, abs=1e-12)
    assert plain["classes"][1]["name"] == "car"
    assert plain["classes"][1]["best"]["score_threshold"] is None  # nothing right is found of it
    assert plain["confusion"][1] == [0, 0, 1, 0, 0]
    assert len(plain["overall"]["curve"]["f1"]) == len(plain["overall"]["precision_at_recall"]) == 101
    assert plain["calibration"]["count"] == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert set(plain["errors"]["ap_gain"]) == {*ERROR_KINDS, "false_positives", "false_negatives"}


@given(tables())
def test_operating_points_are_what_counting_gives(drawn: Tables) -> None:
    report = report_of(drawn)
    founds, things = as_lists(*drawn)
    verdicts = reference.judge(founds, things)
    for quality, label in [(report.overall, None), *((quality, i) for i, quality in enumerate(report.classes))]:
        mine = [verdict for verdict in reference.counted(verdicts) if label in (None, verdict.found.label)]
        num_objects = sum(label in (None, thing.label) and not reference.ignored(thing) for thing in things)
        assert quality.num_detections == len(mine)
        assert quality.average.num_objects == num_objects
        best = 0.0
        for index, threshold in list(enumerate(quality.curve.score_threshold.tolist()))[::10]:
            kept = [verdict for verdict in mine if verdict.found.score > np.float32(threshold)]
            hits = sum(verdict.thing is not None for verdict in kept)
            np.testing.assert_equal(quality.curve.precision[index], hits / len(kept) if kept else np.nan)
            np.testing.assert_equal(quality.curve.recall[index], hits / num_objects if num_objects else np.nan)
            whole = len(kept) + num_objects
            np.testing.assert_equal(quality.curve.f1[index], 2 * hits / whole if whole else np.nan)
            best = max(best, 2 * hits / whole if whole else 0.0)
        at = quality.at_threshold
        assert at.true_positives + at.false_positives == sum(verdict.found.score > np.float32(0.3) for verdict in mine)
        if not math.isnan(quality.best.score_threshold):
            assert quality.best.f1 >= best
            assert quality.best.true_positives > 0


@given(tables())
def test_confusion_is_what_counting_gives(drawn: Tables) -> None:
    report = report_of(drawn)
    founds, things = as_lists(*drawn)
    expected = reference.confusion(reference.judge(founds, things), things, len(report.classes), float(np.float32(0.3)))
    assert report.confusion.tolist() == expected
    objects_by_class = [quality.average.num_objects for quality in report.classes]
    assert report.confusion[:-1].sum(axis=1).tolist() == objects_by_class
    assert report.confusion.diagonal()[:-1].sum() == report.overall.at_threshold.true_positives
    assert report.confusion[:, :-1].sum() == (
        report.overall.at_threshold.true_positives + report.overall.at_threshold.false_positives
    )


@given(tables())
def test_errors_are_what_looking_at_each_gives(drawn: Tables) -> None:
    report = report_of(drawn)
    founds, things = as_lists(*drawn)
    verdicts = reference.judge(founds, things)
    kinds = reference.kinds(verdicts, things)
    expected = {
        verdict.found.row: (kind, -1 if thing is None else things.index(thing))
        for verdict, (kind, thing) in zip(reference.counted(verdicts), kinds, strict=True)
    }
    errors = report.errors
    ours = {
        int(row): ("right" if kind == -1 else ERROR_KINDS[kind], int(thing))
        for row, kind, thing in zip(errors.rows, errors.kind, errors.object_row, strict=True)
        if kind != -2
    }
    assert ours == expected
    gains = reference.gains(verdicts, things)
    for name, gain in errors.ap_gain.items():
        assert gain == pytest.approx(gains[name], abs=1e-12), name
        assert gain >= -1e-12
    assert errors.ap_50 == pytest.approx(report.statistics["map_50"], abs=1e-12)


def test_calibration_by_hand() -> None:
    score = np.array([0.95, 0.92, 0.9, 0.55, 0.5, 1.0, 0.0], dtype=np.float64)
    right = np.array([True, True, False, True, False, True, False])
    calibration = calibrate(score, right, num_bins=2)
    assert calibration.count.tolist() == [1, 6]
    assert calibration.precision.tolist() == [0.0, pytest.approx(4 / 6)]
    assert calibration.mean_score.tolist() == [0.0, pytest.approx(4.82 / 6)]
    assert calibration.expected_error == pytest.approx((4.82 - 4) / 7)


def test_scores_that_are_no_probabilities_do_not_count_in_calibration() -> None:
    score, right = np.array([87.0, 1.0, 0.4, -2.0]), np.array([True, True, False, True])
    calibration = calibrate(score, right, num_bins=2)
    assert (calibration.count.tolist(), calibration.precision.tolist()) == ([1, 1], [0.0, 1.0])
    assert calibration.expected_error == pytest.approx(0.2)
    assert np.isnan(calibrate(score[:1], right[:1]).expected_error)


def test_scores_that_are_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    score = rng.uniform(size=100_000)
    right = rng.uniform(size=100_000) < score
    assert calibrate(score, right).expected_error < 0.01
    assert calibrate(score**2, right).expected_error > 0.1


@pytest.mark.parametrize("gap", [0.1, 0.0], ids=["apart", "next float"])
def test_post_prediction_with_the_best_threshold_keeps_the_detections_it_was_measured_on(gap: float) -> None:
    upper = np.float32(0.5)
    lower = np.nextafter(upper, np.float32(0)) - np.float32(gap)
    score = np.array([0.9, upper, lower, 0.1], dtype=np.float32)
    best = best_point(score, np.array([True, True, False, False]), 2)
    assert best.f1 == 1.0
    assert (torch.from_numpy(score) > best.score_threshold).tolist() == [True, True, False, False]


def test_of_equally_good_thresholds_the_highest_is_best() -> None:
    score, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, False, True])
    best = best_point(score, right, 2)  # F1 is 2/3 with one detection and with all
    assert 0.8 < best.score_threshold < 0.9


def test_a_curve_at_a_score_leaves_that_score_out() -> None:
    score = np.array([0.5, 0.1], dtype=np.float32)
    curve = score_curve(score, np.array([True, False]), 1, np.array([0.0, 0.1, 0.5]))
    np.testing.assert_array_equal(curve.precision, [0.5, 1.0, np.nan])
    np.testing.assert_array_equal(curve.recall, [1.0, 1.0, 0.0])


def test_a_class_without_a_best_threshold_takes_the_overall_one() -> None:
    report = street()
    assert report.best_score_thresholds == (
        report.classes[0].best.score_threshold,
        *[report.overall.best.score_threshold] * 3,
    )


def test_nothing_at_all_is_no_error() -> None:
    integers, floats = np.zeros(0, dtype=np.int64), np.zeros(0)
    empty = DetectionTable(integers, integers, floats, floats.reshape(0, 4))
    nothing = ObjectTable(integers, integers, floats > 0, floats, floats.reshape(0, 4))
    report = quality_report(empty, nothing, num_images=3, class_names=["cat"])
    assert set(report.statistics.values()) == {-1.0}
    assert report.score_threshold == 0.5
    assert report.confusion.tolist() == [[0, 0], [0, 0]]
    assert set(report.errors.ap_gain.values()) == {0.0}
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_threshold_that_is_none_is_refused() -> None:
    truth = objects([(0, 0, [0, 0, 5, 5])])
    with pytest.raises(
        ConfigurationError, match=r"score_threshold=1\.5 is no threshold: choose a number between 0 and 1"
    ):
        quality_report(detections([(0, 0, 0.5, [0, 0, 5, 5])]), truth, num_images=1, score_threshold=1.5)


def test_tables_are_scored_without_torch() -> None:
    """A file of results is scored in a second, not after torch has been imported."""
    code = "import sys; from detlit.metrics import evaluate, quality_report; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
