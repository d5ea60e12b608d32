"""YOLO-NAS and PP-YOLOE compute what SuperGradients' do; tests/golden/README.md describes the numbers."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detlit.losses import PPYoloELoss
from detlit.models import Detector, presets
from detlit.models.layers import RepVGGBlock
from detlit.models.super_gradients import from_super_gradients
from detlit.ops.boxes import decode_boxes
from detlit.structures import RawPredictions, Target
from tests.golden_recipe import image_batch, init_state, subset_indices

GOLDEN = Path(__file__).parents[1] / "golden"
SHAPES = {"a": (1, 128, 160), "b": (2, 64, 64), "g": (2, 128, 128)}
MODELS = ["yolo_nas_s", pytest.param("yolo_nas_m", marks=pytest.mark.slow), "ppyoloe_s"]
PUBLISHED = ["yolo_nas_s", "yolo_nas_m", "yolo_nas_l", "ppyoloe_s", "ppyoloe_m", "ppyoloe_l", "ppyoloe_x"]


@cache
def golden() -> Mapping[str, Any]:
    numbers = {}
    for family in ("yolo_nas", "ppyoloe"):
        with np.load(GOLDEN / f"forward_{family}.npz") as arrays:
            numbers.update(arrays)
    return {name: values.astype(str) if values.dtype.kind == "S" else values for name, values in numbers.items()}


def golden_shapes(model: str) -> dict[str, tuple[int, ...]]:
    keys, shapes = golden()[f"{model}_keys"], golden()[f"{model}_shapes"]
    return {str(key): tuple(int(n) for n in shape if n >= 0) for key, shape in zip(keys, shapes, strict=True)}


@cache
def golden_weights(model: str, mode: str) -> dict[str, Tensor]:
    state = init_state(golden_shapes(model), model, mode)
    return from_super_gradients({key: torch.from_numpy(value) for key, value in state.items()})


def golden_detector(model: str, mode: str, dtype: torch.dtype) -> Detector:
    detector: Detector = getattr(presets, model)()
    detector.load_state_dict(golden_weights(model, mode))
    return detector.to(dtype).train(mode == "train")


def predict(detector: Detector, tag: str) -> RawPredictions:
    with torch.no_grad():
        predictions: RawPredictions = detector(torch.from_numpy(image_batch(tag, *SHAPES[tag])))
    return predictions


def assert_close(actual: Tensor, expected: Any, rtol: float, atol: float) -> None:
    torch.testing.assert_close(actual.double(), torch.as_tensor(expected).double(), rtol=rtol, atol=atol)


def stored_subset(values: Tensor, name: str) -> Tensor:
    return values.flatten()[torch.from_numpy(subset_indices(name, values.numel(), 2048))]


@pytest.mark.parametrize("model", PUBLISHED)
def test_every_super_gradients_weight_has_its_place(model: str) -> None:
    with torch.device("meta"):
        state = from_super_gradients({key: torch.empty(shape) for key, shape in golden_shapes(model).items()})
        ours = getattr(presets, model)().state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in ours.items()}


@pytest.mark.parametrize("tag", ["a", "b"])
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("model", MODELS)
def test_forward_in_float64(model: str, mode: str, tag: str) -> None:
    predictions = predict(golden_detector(model, mode, torch.float64), tag)
    prefix = f"{model}_{mode}_{tag}"
    for field, values in (("cls", predictions.cls_logits), ("distri", predictions.reg_logits)):
        name = f"{prefix}_{field}"
        assert_close(stored_subset(values, name), golden()[name], rtol=1e-6, atol=1e-6)
    if f"{prefix}_boxes" in golden():  # SuperGradients' PP-YOLOE decodes none in training
        # 1e-5 pixels, and half a unit in the last place of a float32 pixel coordinate
        assert_close(decode_boxes(*predictions[1:4]), golden()[f"{prefix}_boxes"], rtol=6e-8, atol=1e-5)
    if mode == "eval":
        assert_close(predictions.anchor_points, golden()[f"{prefix}_anchor_points"], rtol=0, atol=0)
        assert_close(predictions.strides, golden()[f"{prefix}_strides"], rtol=0, atol=0)


@pytest.mark.parametrize("tag", ["a", "b"])
@pytest.mark.parametrize("model", MODELS)
def test_forward_in_float32(model: str, tag: str) -> None:
    predictions = predict(golden_detector(model, "eval", torch.float32), tag)
    prefix = f"{model}_eval_{tag}"
    for field, values in (("cls", predictions.cls_logits), ("distri", predictions.reg_logits)):
        name = f"{prefix}_{field}"
        assert_close(stored_subset(values, name), golden()[name], rtol=0, atol=5e-5)
    scores = stored_subset(predictions.cls_logits, f"{prefix}_cls").sigmoid()
    assert_close(scores, torch.from_numpy(golden()[f"{prefix}_cls"]).sigmoid(), rtol=0, atol=1e-5)
    assert_close(decode_boxes(*predictions[1:4]), golden()[f"{prefix}_boxes"], rtol=0, atol=2e-3)


@pytest.mark.parametrize("model", MODELS)
def test_running_statistics_after_one_step(model: str) -> None:
    detector = golden_detector(model, "train", torch.float64)
    predict(detector, "b")
    keys = golden()[f"{model}_train_b_bn_keys"]
    statistics = from_super_gradients(dict(zip(keys, range(len(keys)), strict=True)))  # type: ignore[arg-type]
    state = detector.state_dict()
    ours = [state[key] for key in statistics]
    assert_close(torch.stack([x.sum() for x in ours]), golden()[f"{model}_train_b_bn_sum"], rtol=1e-9, atol=1e-9)
    assert_close(torch.stack([x.norm() for x in ours]), golden()[f"{model}_train_b_bn_l2"], rtol=1e-9, atol=1e-9)
    assert all(value == 1 for key, value in state.items() if key.endswith("num_batches_tracked"))


def test_fused_blocks_of_ppyoloe() -> None:
    detector = golden_detector("ppyoloe_s", "eval", torch.float64)
    expected = predict(detector, "a")
    # Renamed together with the rest of the state dict, by which PP-YOLOE is recognized.
    keys = [str(key).replace("rbr_reparam", "conv") for key in golden()["ppyoloe_s_fused_keys"]]
    names = list(from_super_gradients(dict.fromkeys([*keys, "head.pred_cls.0.bias"])))[:-1]  # type: ignore[arg-type]
    for module in detector.modules():
        if isinstance(module, RepVGGBlock):
            module.fuse()
    state = detector.state_dict()
    fused = [state[name] for name in names]
    assert_close(torch.stack([x.sum() for x in fused]), golden()["ppyoloe_s_fused_sum"], rtol=1e-9, atol=1e-9)
    assert_close(torch.stack([x.norm() for x in fused]), golden()["ppyoloe_s_fused_l2"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(predict(detector, "a")[:2], expected[:2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("full", [False, True], ids=["partial", "full"])
@pytest.mark.parametrize("model", MODELS[:2])
def test_fused_blocks_of_yolo_nas(model: str, full: bool) -> None:
    detector = golden_detector(model, "eval", torch.float64)
    expected = predict(detector, "a")
    detector.fuse(full)
    prefix = f"{model}_{'full' if full else 'partial'}"
    names = [str(key).replace("rbr_reparam", "conv") for key in golden()[f"{prefix}_keys"]]
    state = detector.state_dict()
    fused = [state[name] for name in from_super_gradients(dict.fromkeys(names))]  # type: ignore[arg-type]
    assert_close(torch.stack([x.sum() for x in fused]), golden()[f"{prefix}_sum"], rtol=1e-9, atol=1e-9)
    assert_close(torch.stack([x.norm() for x in fused]), golden()[f"{prefix}_l2"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(predict(detector, "a")[:2], expected[:2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_gradients(model: str) -> None:
    detector = golden_detector(model, "train", torch.float64)
    rows = torch.from_numpy(golden()[f"{model}_grad_targets"])
    targets = []
    for i in range(2):
        labels, centre, size = rows[rows[:, 0] == i][:, 1:].split((1, 2, 2), dim=1)
        boxes = torch.cat((centre - size / 2, centre + size / 2), dim=1)
        targets.append(Target(boxes=boxes, labels=labels[:, 0].long()))
    output = PPYoloELoss()(detector(torch.from_numpy(image_batch("g", *SHAPES["g"]))), targets)
    output.total.backward()
    assert_close(torch.stack(list(output.terms.values())), golden()[f"{model}_grad_loss"], rtol=1e-9, atol=0)
    norms = dict(zip(golden()[f"{model}_grad_keys"], golden()[f"{model}_grad_l2"], strict=True))
    parameters = dict(detector.named_parameters())
    ours = {name: parameters[name].grad for name in from_super_gradients(norms)}
    assert ours.keys() == parameters.keys()
    # The gradient of a bias before a normalization is zero but for rounding.
    noise = 1e-8 * max(norms.values())
    assert_close(torch.stack([x.norm() for x in ours.values()]), np.array(list(norms.values())), rtol=1e-9, atol=noise)
