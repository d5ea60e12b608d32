"""Detections of two sides, paired."""

import pytest
import torch

from detlit.export.comparison import differences, missing, to_candidates
from detlit.export.verify import QUANTIZED
from detlit.postprocess import NMSPostPredictionCallback
from detlit.structures import Detection


def detections(*found: tuple[float, float, int]) -> Detection:
    """Return squares of 10 pixels from (left, score, label)."""
    left = torch.tensor([[each[0], 0.0, each[0] + 10, 10.0] for each in found]).view(-1, 4)
    scores = torch.tensor([each[1] for each in found])
    return Detection(boxes=left, scores=scores, labels=torch.tensor([each[2] for each in found], dtype=torch.int64))


@pytest.mark.parametrize(("sure", "unmatched"), [(0.5001, 3), (0.6, 1)], ids=["float", "integers"])
def test_only_what_is_surely_above_the_threshold_must_have_a_counterpart(sure: float, unmatched: int) -> None:
    """With a threshold of 0.5: the second of either side may be below it on the other, if scores may differ."""
    ours = detections((0, 0.9, 0), (40, 0.52, 0), (80, 0.8, 1))
    theirs = detections((1, 0.88, 0), (60, 0.53, 0))
    assert differences(ours, theirs, sure) == (unmatched, 1.0, pytest.approx(0.02))


@pytest.mark.parametrize("turned", [False, True])
def test_detections_of_one_side_alone_are_all_unmatched(turned: bool) -> None:
    sides = [detections((0, 0.9, 0), (40, 0.52, 0)), detections()]
    assert differences(*(reversed(sides) if turned else sides), 0.6) == (1, 0.0, 0.0)  # type: ignore[misc]


def test_a_box_of_another_class_is_no_counterpart() -> None:
    assert differences(detections((0, 0.9, 0)), detections((0, 0.9, 1)), 0.6) == (2, 0.0, 0.0)


def test_integers_may_keep_the_other_of_two_nearly_equal_boxes() -> None:
    """Of two neighbours the file keeps the one torch suppresses: 0.5 pixels from it, 3 from the one torch keeps."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [2.5, 0, 12.5, 10], [50, 0, 60, 10], [3, 0, 13, 10]])
    scores = torch.tensor([[0.9, 0], [0.88, 0], [0.0, 0.7], [0.2, 0.9]])  # the last scores otherwise
    found = detections((3, 0.86, 0), (50, 0.65, 1), (80, 0.9, 0), (90, 0.5, 0))  # the last two have none
    assert to_candidates(found, boxes, scores, QUANTIZED, 0.6) == (1, pytest.approx(0.5), pytest.approx(0.05))
    assert to_candidates(found, boxes, scores, QUANTIZED, 0.4)[0] == 2
    assert to_candidates(detections(), boxes, scores, QUANTIZED, 0.6) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        ([(100, 0.9, 0), (104, 0.8, 0)], 0),
        ([(102, 0.81, 0), (104, 0.8, 0)], 0),  # off by as much as it may be
        ([(100, 0.9, 0)], 0),  # the second may have been suppressed
        ([(104, 0.85, 0)], 0),  # the second may have won
        ([(104, 0.79, 0)], 1),  # too low to win
        ([(100, 0.9, 1), (104, 0.8, 0)], 0),
        ([(100, 0.9, 1)], 2),  # another class suppresses nothing
        ([(95, 0.9, 0), (104, 0.7, 0)], 2),  # the first overlaps none, the second is too low to be one of them
        ([], 2),
    ],
)
def test_integers_may_suppress_what_nearly_overlaps_too_far(found: list[tuple[float, float, int]], missed: int) -> None:
    """Squares of 10 pixels, 4 apart, overlap by 0.43; two pixels nearer by 0.67, with a threshold of 0.6 too far."""
    callback = NMSPostPredictionCallback(score_threshold=0.4, nms_threshold=0.6)
    expected = detections((100, 0.9, 0), (104, 0.801, 0), (150, 0.45, 0))  # the last is not sure
    assert missing(expected, detections(*found), callback, QUANTIZED) == missed


def test_any_class_suppresses_where_classes_do_not_count() -> None:
    expected, found = detections((100, 0.9, 0), (104, 0.8, 0)), detections((100, 0.9, 1))
    callback = NMSPostPredictionCallback(score_threshold=0.4, nms_threshold=0.6, class_agnostic_nms=True)
    assert missing(expected, found, callback, QUANTIZED) == 0
