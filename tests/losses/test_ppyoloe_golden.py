"""Assignments, losses and gradients of SuperGradients 3.7.1 (its batched assignment) on pseudo-random predictions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detlit.losses import PPYoloELoss
from detlit.ops.anchors import make_anchor_points
from detlit.ops.targets import collect_ground_truth
from detlit.structures import Level, RawPredictions, Target
from tests.golden_recipe import loss_inputs, subset_indices

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "loss.json").read_text())
RUNS = [(name, run) for name, case in CASES.items() for run in case["runs"]]


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    with np.load(GOLDEN / "loss.npz") as archive:
        return dict(archive)


def predictions_of(case: dict[str, Any], dtype: torch.dtype) -> RawPredictions:
    cls_logits, reg_logits = loss_inputs(
        case["input_tag"], case["batch"], case["hw"], case["num_classes"], case["reg_max"], case["cls_mean"]
    )
    height, width = case["hw"]
    levels = tuple(Level(height // stride, width // stride, stride) for stride in case["strides"])
    points, strides = make_anchor_points(levels, dtype=dtype)
    logits = (torch.tensor(x, dtype=dtype).requires_grad_() for x in (cls_logits, reg_logits))
    return RawPredictions(*logits, points, strides, levels)


def targets_of(rows: np.ndarray, batch_size: int, dtype: torch.dtype) -> list[Target]:
    """Return targets from rows of image, label, centre x, y, width, height."""
    image, label, *box = torch.tensor(rows, dtype=dtype).unbind(1)
    centers, sizes = torch.stack(box[:2], 1), torch.stack(box[2:], 1)
    boxes = torch.cat((centers - sizes / 2, centers + sizes / 2), 1)
    return [Target(boxes=boxes[image == i], labels=label[image == i].long()) for i in range(batch_size)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("name", "run"), RUNS, ids=["-".join(run) for run in RUNS])
def test_loss_assignment_and_gradients(name: str, run: str, dtype: torch.dtype, numbers: dict[str, Any]) -> None:
    case, golden = CASES[name], {key.split("/")[2]: value for key, value in numbers.items() if f"{name}/{run}/" in key}
    predictions = predictions_of(case, dtype)
    targets = targets_of(numbers[f"{name}/targets"], case["batch"], dtype)
    loss = PPYoloELoss(case["num_classes"], use_static_assigner=run == "atss", **case["loss_kwargs"])

    output = loss(predictions, targets)
    values = [*(term.item() for term in output.terms.values()), output.total.item()]
    np.testing.assert_allclose(values, golden["loss"], rtol=1e-5 if dtype == torch.float32 else 1e-8)

    check_assignment(loss, predictions, targets, golden)
    output.total.backward()
    image, anchor = golden["pos_idx"][:24].T
    check_gradient(predictions.cls_logits, golden["gc_sub"], golden["gc_stats"])
    check_gradient(predictions.reg_logits, golden["gd_sub"], golden["gd_stats"])
    np.testing.assert_allclose(predictions.reg_logits.grad[image, anchor], golden["gd_pos"], rtol=1e-5, atol=1e-7)


def check_assignment(
    loss: PPYoloELoss, predictions: RawPredictions, targets: list[Target], golden: dict[str, Any]
) -> None:
    num_classes = predictions.cls_logits.shape[-1]
    assigner = loss.static_assigner if loss.use_static_assigner else loss.assigner
    truth = collect_ground_truth(targets, num_classes, predictions.reg_logits)
    image, anchor, objects, scores = assigner(predictions, truth)
    np.testing.assert_array_equal(torch.stack((image, anchor), dim=1), golden["pos_idx"])
    np.testing.assert_array_equal(truth.labels[objects], golden["pos_label"])
    np.testing.assert_allclose(truth.boxes[objects], golden["pos_box"], rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(scores, golden["pos_score"], atol=1e-5)


def check_gradient(logits: torch.Tensor, sample: np.ndarray, stats: np.ndarray) -> None:
    """Compare a sample, which is stored in float32, and the float64 L2 norm, sum and largest magnitude."""
    gradient = logits.grad.numpy().ravel()
    indices = subset_indices("grad", gradient.size, min(2048, gradient.size))[: len(sample)]
    np.testing.assert_allclose(
        gradient[indices], sample, rtol=1e-5, atol=1e-6 if logits.dtype == torch.float32 else 1e-9
    )
    wide = gradient.astype(np.float64)
    rtol, atol = (1e-5, 1e-6) if logits.dtype == torch.float32 else (1e-8, 1e-9)
    np.testing.assert_allclose([np.linalg.norm(wide), wide.sum(), np.abs(wide).max()], stats, rtol=rtol, atol=atol)
