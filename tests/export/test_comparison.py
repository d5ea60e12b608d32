"""Detections of two sides, paired."""

import pytest
import torch

from detlit.export.comparison import differences
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
