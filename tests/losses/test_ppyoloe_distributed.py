"""What every rank logs is the joint batch's loss, and the gradient DDP averages is the joint batch's gradient."""

import pytest
import torch
from torch import distributed

from detlit.losses import PPYoloELoss
from detlit.structures import LossOutput, RawPredictions
from tests.fake_predictions import make_predictions, make_targets, with_grad
from tests.processes import run_in_processes

COUNTS = {"both": (4, 1, 3, 6), "one-empty": (2, 3, 0, 0), "sum-below-one": (0, 0, 1, 0), "all-empty": (0, 0, 0, 0)}


def part(predictions: RawPredictions, images: slice) -> RawPredictions:
    return with_grad(
        predictions._replace(cls_logits=predictions.cls_logits[images], reg_logits=predictions.reg_logits[images])
    )


def values(output: LossOutput) -> torch.Tensor:
    return torch.stack([output.total.detach(), *output.terms.values()])


def compare_with_joint_batch(rank: int, counts: tuple[int, ...], static: bool) -> None:
    predictions, targets = make_predictions(batch_size=4, dtype=torch.float64), make_targets(counts)
    loss = PPYoloELoss(use_static_assigner=static)

    images = slice(2 * rank, 2 * rank + 2)
    own = part(predictions, images)
    output = loss(own, targets[images])
    output.total.backward()

    joint = part(predictions, slice(0, 4))
    if rank == 0:  # in evaluation a rank computes for itself: the others do not wait for it
        assert loss.eval()(own, targets[images]).total.isfinite()
    expected = loss.eval()(joint, targets)
    expected.total.backward()
    torch.testing.assert_close(values(output), values(expected), rtol=1e-12, atol=0)
    for ours, theirs in ((own.cls_logits, joint.cls_logits), (own.reg_logits, joint.reg_logits)):
        averaged = ours.grad / distributed.get_world_size()
        torch.testing.assert_close(averaged, theirs.grad[images], rtol=1e-10, atol=1e-15)


@pytest.mark.distributed
@pytest.mark.parametrize("static", [False, True], ids=["task_aligned", "atss"])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_two_ranks_equal_the_joint_batch(counts: tuple[int, ...], static: bool) -> None:
    run_in_processes(compare_with_joint_batch, 2, counts, static)
