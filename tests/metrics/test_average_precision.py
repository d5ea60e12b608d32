"""Our COCO protocol against pycocotools and against matching one by one."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given

from detlit.errors import ConfigurationError
from detlit.metrics import DetectionTable, ObjectTable, evaluate, matching
from detlit.metrics.average_precision import score_order
from detlit.metrics.matching import Settings, match
from detlit.metrics.pycocotools_backend import evaluate_with_pycocotools
from tests.metrics.random_tables import as_lists, tables
from tests.reference.metrics import judge

Tables = tuple[DetectionTable, ObjectTable]


def detections(rows: Iterable[tuple[int, int, float, list[float]]]) -> DetectionTable:
    """Return a table of (image, label, score, xywh) rows."""
    image, label, score, xywh = zip(*rows, strict=True)
    return DetectionTable(
        np.array(image), np.array(label), np.array(score, dtype=np.float32), np.array(xywh, dtype=np.float64)
    )


def objects(rows: Iterable[tuple[int, int, list[float]]], crowds: Iterable[int] = ()) -> ObjectTable:
    """Return a table of (image, label, xywh) rows, some of them crowds."""
    image, label, xywh = zip(*rows, strict=True)
    boxes = np.array(xywh, dtype=np.float64)
    iscrowd = np.isin(np.arange(len(boxes)), list(crowds))
    return ObjectTable(np.array(image), np.array(label), iscrowd, boxes[:, 2] * boxes[:, 3], boxes)


def assert_equals_pycocotools(found: DetectionTable, truth: ObjectTable) -> None:
    ours, theirs = evaluate(found, truth)[0], evaluate_with_pycocotools(found, truth)
    np.testing.assert_allclose(ours.statistics(), theirs.statistics(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.precision, theirs.precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall, theirs.recall, rtol=0, atol=1e-12)


@given(tables())
def test_equals_pycocotools(drawn: Tables) -> None:
    assert_equals_pycocotools(*drawn)


@given(tables())
def test_matches_as_one_by_one(drawn: Tables) -> None:
    found, truth = drawn
    settings = Settings()
    matches = match(found, truth, settings)
    order = score_order(found, matches)
    for threshold, area in [(0, 0), (0, 1), (4, 0), (4, 3), (9, 2)]:
        bit = settings.bit(threshold, area)
        founds, things = as_lists(found, truth)
        verdicts = judge(founds, things, settings.iou_thresholds[threshold], settings.areas[area])
        expected = {verdict.found.row: (verdict.thing is not None, verdict.ignored) for verdict in verdicts}
        rows = matches.rows[order].tolist()
        matched, ignored = matches.matched[order] & bit != 0, matches.ignored[order] & bit != 0
        assert dict(zip(rows, zip(matched.tolist(), ignored.tolist(), strict=True), strict=True)) == expected
        if (threshold, area) == (0, 0):
            chosen = {
                verdict.found.row: -1 if verdict.thing is None else things.index(verdict.thing) for verdict in verdicts
            }
            assert dict(zip(matches.rows.tolist(), matches.object_row.tolist(), strict=True)) == chosen


@given(tables())
def test_the_number_of_pairs_at_a_time_changes_nothing(drawn: Tables) -> None:
    whole = evaluate(*drawn)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "PAIRS_AT_A_TIME", 3)
        parts = evaluate(*drawn)[0]
    np.testing.assert_array_equal(parts.precision, whole.precision)


def test_the_hundred_best_of_each_image_and_class_count() -> None:
    """The 101st detection is right and lost; the best hundred of another class do not push it out."""
    truth = objects([(0, 0, [0, 0, 50, 50]), (0, 1, [0, 0, 50, 50])])
    wrong = [(0, 0, 0.9, [200.0, 200.0, 50.0, 50.0])] * 100
    right = [(0, 0, 0.5, [0.0, 0.0, 50.0, 50.0]), (0, 1, 0.5, [0.0, 0.0, 50.0, 50.0])]
    found = detections([*wrong, *right])
    assert_equals_pycocotools(found, truth)
    np.testing.assert_array_equal(evaluate(found, truth)[0].average_recall(), [0.0, 1.0])


def test_more_than_a_hundred_detections_of_crowded_images_equal_pycocotools() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(3), 40)
    corners = rng.uniform(0, 200, (120, 2))
    boxes = np.concatenate([corners, rng.uniform(10, 120, (120, 2))], axis=1)
    truth = ObjectTable(image, rng.integers(0, 2, 120), rng.uniform(size=120) < 0.1, boxes[:, 2] * boxes[:, 3], boxes)
    copies = np.repeat(np.arange(120), 8)
    found = DetectionTable(
        image[copies],
        truth.label[copies],
        np.round(rng.uniform(size=960), 1).astype(np.float32),
        boxes[copies] + rng.normal(0, 8, (960, 4)),
    )
    assert_equals_pycocotools(found, truth)
    assert 0.05 < evaluate(found, truth)[0].statistics()[0] < 0.9


def test_labels_beyond_sixteen_bits_change_nothing() -> None:
    truth = objects([(0, 3, [0, 0, 50, 50]), (1, 70_000, [0, 0, 50, 50])])
    found = detections([(0, 3, 0.9, [0, 0, 50, 50]), (1, 3, 0.95, [0, 0, 50, 50]), (1, 70_000, 0.9, [0, 0, 50, 40])])
    assert_equals_pycocotools(found, truth)
    np.testing.assert_allclose(evaluate(found, truth)[0].average_precision(), [0.5, 0.7], rtol=0, atol=1e-12)


def test_an_iou_on_the_threshold_is_a_match() -> None:
    truth = objects([(0, 0, [0, 0, 10, 10])])
    at_half = evaluate(detections([(0, 0, 0.9, [0, 0, 10, 5])]), truth)[0]
    np.testing.assert_allclose(at_half.statistics()[:3], [0.1, 1.0, 0.0], rtol=0, atol=1e-12)


def test_a_crowd_takes_many_detections_and_is_not_missed() -> None:
    truth = objects([(0, 0, [0, 0, 100, 100]), (0, 0, [200, 200, 20, 20])], crowds=[0])
    inside = [(0, 0, 0.9, [10.0 * i, 10.0, 20.0, 20.0]) for i in range(5)]
    found = detections([*inside, (0, 0, 0.5, [200, 200, 20, 20])])
    assert evaluate(found, truth)[0].statistics()[0] == pytest.approx(1.0, abs=1e-12)


def test_more_combinations_than_bits_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="17 IoU thresholds and 4 area ranges: choose 1 to 64 combinations"):
        Settings(iou_thresholds=tuple(np.linspace(0.1, 0.9, 17).tolist()))
