"""The assigners against their slow twins; their golden numbers are in ``tests/losses/test_ppyoloe_golden.py``."""

import pytest
import torch

from detlit.assigners import ATSSAssigner, TaskAlignedAssigner
from detlit.ops.boxes import decode_boxes
from detlit.ops.targets import collect_ground_truth
from detlit.structures import RawPredictions, Target
from tests.fake_predictions import make_predictions, make_targets
from tests.reference import assigners as reference


def check(
    predictions: RawPredictions, target: Target, assignment: tuple, owners: list[int], scores: list[float]
) -> None:
    labels, boxes, got_scores = (column[0] for column in assignment)
    num_classes = predictions.cls_logits.shape[-1]
    assert labels.tolist() == [num_classes if i < 0 else int(target["labels"][i]) for i in owners]
    expected = torch.stack([torch.zeros(4) if i < 0 else target["boxes"][i] for i in owners]).to(boxes)
    torch.testing.assert_close(boxes, expected, rtol=0, atol=0)
    torch.testing.assert_close(got_scores, torch.tensor(scores, dtype=got_scores.dtype), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("topk", [13, 3])
@pytest.mark.parametrize("count", [1, 4, 25])
def test_task_aligned(topk: int, count: int) -> None:
    predictions, target = make_predictions(batch_size=1, dtype=torch.float64, seed=count), make_targets([count])[0]
    decoded = decode_boxes(predictions.reg_logits, predictions.anchor_points, predictions.strides)
    owners, scores = reference.task_aligned(
        predictions.cls_logits[0].sigmoid().tolist(),
        decoded[0].tolist(),
        predictions.anchor_points.tolist(),
        target["boxes"].tolist(),
        target["labels"].tolist(),
        topk,
    )
    truth = collect_ground_truth([target], 3, predictions.reg_logits)
    check(predictions, target, TaskAlignedAssigner(topk=topk)(predictions, truth), owners, scores)


@pytest.mark.parametrize("size", [32, 64, 96])
@pytest.mark.parametrize("count", [1, 4, 25])
def test_atss(size: int, count: int) -> None:
    predictions = make_predictions(size, batch_size=1, dtype=torch.float64)
    target = make_targets([count], size, seed=count)[0]
    decoded = decode_boxes(predictions.reg_logits, predictions.anchor_points, predictions.strides)
    owners, scores = reference.atss(
        decoded[0].tolist(),
        predictions.anchor_points.tolist(),
        predictions.strides[:, 0].tolist(),
        target["boxes"].tolist(),
    )
    assert count == 1 or max(owners) >= 0
    truth = collect_ground_truth([target], 3, predictions.reg_logits)
    check(predictions, target, ATSSAssigner()(predictions, truth), owners, scores)


def test_atss_takes_the_lowest_index_of_equal_distances() -> None:
    """A box centred on a grid corner is as far from four, and then from eight cells: only 9 may be candidates."""
    predictions = make_predictions(96, batch_size=1, dtype=torch.float64)
    target = Target(boxes=torch.tensor([[24.0, 24.0, 72.0, 72.0]]), labels=torch.tensor([1]))
    decoded = decode_boxes(predictions.reg_logits, predictions.anchor_points, predictions.strides)
    owners, scores = reference.atss(
        decoded[0].tolist(),
        predictions.anchor_points.tolist(),
        predictions.strides[:, 0].tolist(),
        target["boxes"].tolist(),
    )
    truth = collect_ground_truth([target], 3, predictions.reg_logits)
    check(predictions, target, ATSSAssigner()(predictions, truth), owners, scores)


@pytest.mark.parametrize("option", [{"alpha": 0.5}, {"beta": 2.0}, {"topk": 2}])
def test_each_option_of_the_task_aligned_assigner_changes_the_assignment(option: dict[str, float]) -> None:
    predictions = make_predictions(batch_size=1)
    truth = collect_ground_truth(make_targets([4]), 3, predictions.reg_logits)
    default, changed = (TaskAlignedAssigner(**kwargs)(predictions, truth) for kwargs in ({}, option))
    assert not torch.equal(default.scores, changed.scores)


def test_topk_changes_the_atss_assignment() -> None:
    predictions = make_predictions(96, batch_size=1)
    truth = collect_ground_truth(make_targets([6], 96), 3, predictions.reg_logits)
    assert not torch.equal(ATSSAssigner()(predictions, truth).labels, ATSSAssigner(topk=2)(predictions, truth).labels)
