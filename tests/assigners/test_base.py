import numpy as np
import pytest
import torch
from torch import Tensor

from detlit.assigners import Assigner, ATSSAssigner, ImageAssigner, ImageObjects, ImagePredictions, TaskAlignedAssigner
from detlit.errors import ConfigurationError
from detlit.ops.boxes import decode_boxes
from detlit.ops.targets import collect_ground_truth
from detlit.structures import Target
from tests.fake_predictions import make_batch, make_predictions, make_targets

ASSIGNERS = [TaskAlignedAssigner(), ATSSAssigner()]
NAMES = ["task_aligned", "atss"]


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
def test_positives_are_sorted_and_none_is_taken_twice(assigner: Assigner) -> None:
    predictions, targets = make_predictions(batch_size=3), make_targets([30, 0, 20])
    truth = collect_ground_truth(targets, 3, predictions.reg_logits)
    image, anchor, objects, scores = assigner(predictions, truth)
    position = image * len(predictions.anchor_points) + anchor
    assert (position.diff() > 0).all()
    assert set(image.tolist()) == {0, 2}
    np.testing.assert_array_equal(truth.image_index()[objects], image)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_dense_view_shows_objects_and_background() -> None:
    predictions, targets = make_predictions(batch_size=3), make_targets([2, 0, 2])
    assignment = TaskAlignedAssigner()(predictions, collect_ground_truth(targets, 3, predictions.reg_logits))
    objects, scores = assignment.dense(3, len(predictions.anchor_points))
    assert objects.shape == scores.shape == predictions.cls_logits.shape[:2]
    assert (objects >= 0).sum() == len(assignment.image)
    assert (objects[1] == -1).all()
    assert not scores[objects < 0].any()
    torch.testing.assert_close(scores[assignment.image, assignment.anchor], assignment.scores)


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
def test_crowd_is_left_out(assigner: Assigner) -> None:
    predictions = make_predictions(batch_size=1)
    target = make_targets([25])[0]
    crowd = torch.arange(25) % 3 == 0
    with_crowd = collect_ground_truth([{**target, "iscrowd": crowd}], 3, predictions.reg_logits)
    without = [Target(boxes=target["boxes"][~crowd], labels=target["labels"][~crowd])]
    expected = assigner(predictions, collect_ground_truth(without, 3, predictions.reg_logits))
    image, anchor, objects, scores = assigner(predictions, with_crowd)
    kept = torch.arange(25)[~crowd]
    for ours, theirs in zip(
        (image, anchor, objects, scores), expected._replace(object=kept[expected.object]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
def test_boxes_left_of_and_above_the_image_keep_their_anchors(assigner: Assigner) -> None:
    predictions = make_predictions(batch_size=1)
    target = Target(boxes=torch.tensor([[-60.0, -60.0, 30.0, 30.0]]), labels=torch.tensor([1]))
    assert len(assigner(predictions, collect_ground_truth([target], 3, predictions.reg_logits)).image)


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
@pytest.mark.parametrize(
    "box",
    [[9.0, 9.0, 11.0, 11.0], [8.0, 8.0, 8.0, 20.0], [20.0, 20.0, 12.0, 12.0], [70.0, 70.0, 90.0, 90.0]],
    ids=["between-centres", "zero-area", "inside-out", "outside"],
)
def test_a_box_around_no_anchor_point_stays_unassigned(assigner: Assigner, box: list[float]) -> None:
    predictions = make_predictions(batch_size=1)
    target = Target(boxes=torch.tensor([box]), labels=torch.tensor([0]))
    assert not len(assigner(predictions, collect_ground_truth([target], 3, predictions.reg_logits)).image)


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
def test_precision_of_logits_does_not_reach_the_scores(assigner: Assigner) -> None:
    predictions = make_predictions(batch_size=1)
    half = predictions._replace(
        cls_logits=predictions.cls_logits.bfloat16(), reg_logits=predictions.reg_logits.bfloat16()
    )
    same = half._replace(cls_logits=half.cls_logits.float(), reg_logits=half.reg_logits.float())
    ours, theirs = (assigner(p, collect_ground_truth(make_targets([9]), 3, p.reg_logits)) for p in (half, same))
    assert ours.scores.dtype == torch.float32
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


class Nearest(ImageAssigner):
    """Gives each object the anchor point nearest to its centre; of several objects the first takes it."""

    def match(self, predictions: ImagePredictions, objects: ImageObjects) -> tuple[Tensor, Tensor]:
        centers = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
        nearest = torch.cdist(centers, predictions.anchor_points).argmin(1)
        matched = torch.zeros(len(centers), len(predictions.anchor_points), dtype=torch.bool)
        for i, anchor in enumerate(nearest.tolist()):
            matched[i, anchor] = not objects.iscrowd[i] and not matched[:, anchor].any()
        assert predictions.boxes.dtype == predictions.cls_logits.dtype == torch.float32
        return matched, predictions.boxes.sum(1).sigmoid().expand_as(matched)


def test_an_assigner_may_see_one_image_at_a_time() -> None:
    predictions, targets = make_predictions(batch_size=3), make_targets([3, 0, 2])
    half = predictions._replace(reg_logits=predictions.reg_logits.half(), cls_logits=predictions.cls_logits.half())
    truth = collect_ground_truth(make_batch(targets), 3, half.reg_logits)
    image, anchor, objects, scores = Nearest()(half, truth)
    assert image.tolist() == [0] * 3 + [2] * 2
    assert sorted(objects.tolist()) == [0, 1, 2, 3, 4]
    assert (anchor.diff() > 0).tolist() == [True, True, anchor[3] > anchor[2], True]
    decoded = decode_boxes(half.reg_logits, half.anchor_points, half.strides)
    torch.testing.assert_close(scores, decoded[image, anchor].sum(1).sigmoid())
    nothing = Nearest()(half, collect_ground_truth(make_targets([0, 0, 0]), 3, half.reg_logits))
    assert [len(column) for column in nothing] == [0] * 4


@pytest.mark.parametrize("kind", [TaskAlignedAssigner, ATSSAssigner])
def test_topk_below_one_is_refused(kind: type[TaskAlignedAssigner]) -> None:
    with pytest.raises(ConfigurationError, match="topk=0 leaves no anchor points to assign: choose at least 1"):
        kind(topk=0)


@pytest.mark.parametrize("option", ["alpha", "beta"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_exponents_that_are_none_are_refused(option: str, value: float) -> None:
    with pytest.raises(
        ConfigurationError, match=f"^{option}={value} is no exponent: choose a finite number, 0 or more"
    ):
        TaskAlignedAssigner(**{option: value})
    TaskAlignedAssigner(**{option: 0.0})
