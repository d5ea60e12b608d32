import pytest
import torch

from detlit.assigners import Assigner, ATSSAssigner, TaskAlignedAssigner
from detlit.assigners.base import inside_boxes, resolve_conflicts, top_k_mask
from detlit.errors import ConfigurationError
from detlit.ops.targets import collect_ground_truth
from tests.fake_predictions import make_predictions, make_targets

ASSIGNERS = [TaskAlignedAssigner(), ATSSAssigner()]
NAMES = ["task_aligned", "atss"]


def test_top_k_takes_the_lowest_index_of_equal_values() -> None:
    values = torch.tensor([[1.0, 3.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert top_k_mask(values, 3).int().tolist() == [[1, 1, 0, 0, 1], [1, 1, 1, 0, 0]]


def test_top_k_of_a_short_row_is_the_row() -> None:
    assert top_k_mask(torch.rand(2, 3), 9).all()


def test_a_point_on_the_border_is_not_inside() -> None:
    points = torch.tensor([[4.0, 4.0], [8.0, 4.0], [8.1, 4.0]])
    assert inside_boxes(points, torch.tensor([[0.0, 0.0, 8.0, 8.0]])).tolist() == [[True, False, False]]


def test_contested_anchor_goes_to_the_largest_overlap_of_all_objects() -> None:
    claims = torch.tensor([[True, True], [True, False], [False, False]])
    iou = torch.tensor([[0.1, 0.1], [0.2, 0.9], [0.3, 0.9]])
    iscrowd = torch.tensor([False, False, False])
    assert resolve_conflicts(claims, iou, iscrowd).tolist() == [[False, True], [False, False], [True, False]]
    iscrowd[2] = True
    assert resolve_conflicts(claims, iou, iscrowd).tolist() == [[False, True], [True, False], [False, False]]


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
def test_anchors_without_object_are_background(assigner: Assigner) -> None:
    predictions = make_predictions(batch_size=3)
    truth = collect_ground_truth(make_targets([3, 0, 2]), 3, predictions.reg_logits)
    assignment = assigner(predictions, truth)
    background = assignment.labels == 3
    assert background[1].all()
    assert not background[0].all()
    assert not assignment.boxes[background].any()
    assert not assignment.scores[background].any()
    assert assignment.scores.max() <= 1


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
def test_crowd_is_left_out(assigner: Assigner) -> None:
    predictions = make_predictions(batch_size=1)
    target = make_targets([5])[0]
    crowd = torch.tensor([True, False, True, False, False])
    with_crowd = collect_ground_truth([{**target, "iscrowd": crowd}], 3, predictions.reg_logits)
    without = [{"boxes": target["boxes"][~crowd], "labels": target["labels"][~crowd]}]
    expected = assigner(predictions, collect_ground_truth(without, 3, predictions.reg_logits))
    for ours, theirs in zip(assigner(predictions, with_crowd), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
def test_boxes_left_of_and_above_the_image_keep_their_anchors(assigner: Assigner) -> None:
    predictions = make_predictions(batch_size=1)
    target = {"boxes": torch.tensor([[-60.0, -60.0, 30.0, 30.0]]), "labels": torch.tensor([1])}
    assignment = assigner(predictions, collect_ground_truth([target], 3, predictions.reg_logits))
    assert (assignment.labels == 1).any()


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
@pytest.mark.parametrize("box", [[9.0, 9.0, 11.0, 11.0], [8.0, 8.0, 8.0, 20.0]], ids=["between-centres", "zero-area"])
def test_a_box_around_no_anchor_point_stays_unassigned(assigner: Assigner, box: list[float]) -> None:
    predictions = make_predictions(batch_size=1)
    target = {"boxes": torch.tensor([box]), "labels": torch.tensor([0])}
    assignment = assigner(predictions, collect_ground_truth([target], 3, predictions.reg_logits))
    assert (assignment.labels == 3).all()


@pytest.mark.parametrize("kind", [TaskAlignedAssigner, ATSSAssigner])
def test_topk_below_one_is_refused(kind: type[TaskAlignedAssigner]) -> None:
    with pytest.raises(ConfigurationError, match="topk=0 leaves no anchor points to assign: choose at least 1"):
        kind(topk=0)
