"""The assigners against their slow twins; their golden numbers are in ``tests/losses/test_ppyoloe_golden.py``."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detlit.assigners import ATSSAssigner, TaskAlignedAssigner, matching, task_aligned
from detlit.ops.targets import collect_ground_truth
from detlit.structures import Target
from tests.fake_predictions import make_predictions, make_targets
from tests.reference import ppyoloe as reference
from tests.scenes import Scene, scenes


def check(scene: Scene, assigner: TaskAlignedAssigner | ATSSAssigner) -> None:
    predictions, targets = scene
    truth = collect_ground_truth(targets, predictions.cls_logits.shape[-1], predictions.reg_logits)
    objects, scores = assigner(predictions, truth).dense(*predictions.cls_logits.shape[:2])
    owners, qualities = reference.assign(*scene, isinstance(assigner, ATSSAssigner), assigner.topk)
    assert objects.tolist() == owners
    torch.testing.assert_close(scores, torch.tensor(qualities, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@given(scene=scenes(), topk=st.sampled_from([13, 13, 3, 1, 30]))
def test_task_aligned(scene: Scene, topk: int) -> None:
    check(scene, TaskAlignedAssigner(topk=topk))


@given(scene=scenes(), topk=st.sampled_from([9, 9, 9, 1, 4, 15]))
def test_atss(scene: Scene, topk: int) -> None:
    check(scene, ATSSAssigner(topk=topk))


@pytest.mark.parametrize("assigner", [TaskAlignedAssigner(), ATSSAssigner()], ids=["task_aligned", "atss"])
def test_one_crowded_image_among_empty_ones(assigner: TaskAlignedAssigner | ATSSAssigner) -> None:
    targets = make_targets([0, 120, 0, 1], 96)
    check(Scene(make_predictions(96, batch_size=4, dtype=torch.float64), targets), assigner)


@pytest.mark.parametrize("assigner", [TaskAlignedAssigner(), ATSSAssigner()], ids=["task_aligned", "atss"])
def test_small_chunks_change_nothing(
    assigner: TaskAlignedAssigner | ATSSAssigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, targets = make_predictions(96, batch_size=2, dtype=torch.float64), make_targets([40, 9], 96)
    truth = collect_ground_truth(targets, 3, predictions.reg_logits)
    expected = assigner(predictions, truth)
    for module in (matching, task_aligned):
        monkeypatch.setattr(module, "chunk_size", lambda device: 64)
    for ours, theirs in zip(assigner(predictions, truth), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    "assigner", [TaskAlignedAssigner(topk=30), ATSSAssigner(topk=30)], ids=["task_aligned", "atss"]
)
def test_topk_may_be_larger_than_an_image(assigner: TaskAlignedAssigner | ATSSAssigner) -> None:
    """An image of 32 pixels has 21 anchor points."""
    check(Scene(make_predictions(32, dtype=torch.float64), make_targets([1, 3], 32)), assigner)


def test_atss_takes_the_lowest_index_of_equal_distances() -> None:
    """A box centred on a grid corner is as far from four, and then from eight cells: only 9 may be candidates."""
    target = Target(boxes=torch.tensor([[24.0, 24.0, 72.0, 72.0]]), labels=torch.tensor([1]))
    check(Scene(make_predictions(96, batch_size=1, dtype=torch.float64), [target]), ATSSAssigner())


@pytest.mark.parametrize("y", [24.0, 60.0], ids=["tie", "no-tie"])
def test_atss_looks_along_the_border_for_a_centre_outside_the_image(y: float) -> None:
    """Then up to nine of the nearest cells lie in one column."""
    target = Target(boxes=torch.tensor([[-900.0, y - 90, 100.0, y + 90]]), labels=torch.tensor([1]))
    check(Scene(make_predictions(160, batch_size=1, dtype=torch.float64), [target]), ATSSAssigner())


def test_task_aligned_takes_the_lowest_index_of_equal_alignments() -> None:
    """Predicted boxes that miss the object are all aligned by 0: the first cells inside it are taken."""
    predictions = make_predictions(96, batch_size=1)
    nowhere = torch.zeros_like(predictions.reg_logits).unflatten(2, (4, -1))
    nowhere[..., 0] = 1e4  # boxes of no size
    target = Target(boxes=torch.tensor([[0.0, 0.0, 96.0, 96.0]]), labels=torch.tensor([1]))
    for dtype in (torch.float32, torch.float64):
        empty = predictions._replace(
            reg_logits=nowhere.flatten(2).to(dtype), cls_logits=predictions.cls_logits.to(dtype)
        )
        truth = collect_ground_truth([target], 3, empty.reg_logits)
        assert TaskAlignedAssigner()(empty, truth).anchor.tolist() == list(range(13))


@pytest.mark.parametrize("option", [{"alpha": 0.5}, {"beta": 2.0}, {"topk": 2}])
def test_each_option_of_the_task_aligned_assigner_changes_the_assignment(option: dict[str, float]) -> None:
    predictions = make_predictions(batch_size=1)
    truth = collect_ground_truth(make_targets([4]), 3, predictions.reg_logits)
    default, changed = (TaskAlignedAssigner(**kwargs)(predictions, truth) for kwargs in ({}, option))
    assert default.scores.tolist() != changed.scores.tolist()


def test_topk_changes_the_atss_assignment() -> None:
    predictions = make_predictions(96, batch_size=1)
    truth = collect_ground_truth(make_targets([6], 96), 3, predictions.reg_logits)
    default, changed = (assigner(predictions, truth) for assigner in (ATSSAssigner(), ATSSAssigner(topk=2)))
    assert default.anchor.tolist() != changed.anchor.tolist()
