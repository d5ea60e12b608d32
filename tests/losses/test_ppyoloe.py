from typing import Any

import pytest
import torch
from hypothesis import given
from jsonargparse import ArgumentParser

from detlit.assigners import ATSSAssigner, TaskAlignedAssigner
from detlit.errors import AnnotationError, ConfigurationError
from detlit.losses import DetectionLoss, PPYoloELoss
from detlit.ops.targets import collect_ground_truth
from detlit.spec import build, spec_of
from detlit.structures import LossOutput, Target
from tests.fake_predictions import make_batch, make_predictions, make_targets, with_grad
from tests.reference import ppyoloe as reference
from tests.scenes import Scene, scenes
from tests.tiny import tiny_detector

STATIC = pytest.mark.parametrize("static", [False, True], ids=["task_aligned", "atss"])


def values(output: LossOutput) -> list[float]:
    return [output.total.item(), *(term.item() for term in output.terms.values())]


@STATIC
@pytest.mark.parametrize("varifocal", [True, False], ids=["varifocal", "focal"])
@given(scene=scenes(sides=(32, 64, 96)))
def test_terms_equal_the_slow_twin(static: bool, varifocal: bool, scene: Scene) -> None:
    output = PPYoloELoss(use_static_assigner=static, use_varifocal_loss=varifocal)(*scene)
    terms = reference.terms(*scene, static, varifocal)
    assert values(output) == pytest.approx([sum(terms), *terms], rel=1e-9, abs=1e-12)
    assert list(output.terms) == ["loss_cls", "loss_iou", "loss_dfl"]


@STATIC
@pytest.mark.parametrize("varifocal", [True, False], ids=["varifocal", "focal"])
def test_gradients_equal_differences_of_the_loss(static: bool, varifocal: bool) -> None:
    """Scores and normaliser are no functions of the logits: the assignment is held while these change a little."""
    predictions = with_grad(make_predictions(num_classes=2, reg_max=7, dtype=torch.float64))
    targets = make_targets([3, 1], num_classes=2)
    truth = collect_ground_truth(targets, 2, predictions.reg_logits)
    loss = PPYoloELoss(use_static_assigner=static, use_varifocal_loss=varifocal)
    assignment = (loss.static_assigner if static else loss.assigner)(predictions, truth)
    held: Any = lambda *_: assignment  # noqa: E731
    loss.assigner = loss.static_assigner = held
    loss(predictions, targets).total.backward()

    generator = torch.Generator().manual_seed(0)
    for name in ("cls_logits", "reg_logits"):
        logits = getattr(predictions, name)
        for _ in range(3):
            direction = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
            step = 1e-5 * direction
            above, below = (
                loss(predictions._replace(**{name: x.detach()}), targets).total.detach()
                for x in (logits + step, logits - step)
            )
            slope = float((logits.grad * direction).sum())
            assert slope == pytest.approx(float(above - below) / 2e-5, rel=1e-6)


def test_it_cannot_be_differentiated_twice() -> None:
    predictions = with_grad(make_predictions())
    total = PPYoloELoss()(predictions, make_targets([3, 2])).total
    for logits in (predictions.cls_logits, predictions.reg_logits):
        with pytest.raises(RuntimeError, match="can be differentiated once: call backward without create_graph=True"):
            torch.autograd.grad(total, logits, create_graph=True)


@STATIC
@pytest.mark.parametrize("size", [32, 64, 96])
def test_small_images_train(static: bool, size: int) -> None:
    predictions = with_grad(make_predictions(size, batch_size=1))
    target = Target(boxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]) * size, labels=torch.tensor([1]))
    output = PPYoloELoss(use_static_assigner=static)(predictions, [target])
    output.total.backward()
    assert output.total.isfinite()
    assert predictions.reg_logits.grad.abs().sum() > 0


@STATIC
def test_batch_without_objects_trains_the_background(static: bool) -> None:
    predictions = with_grad(make_predictions())
    output = PPYoloELoss(use_static_assigner=static)(predictions, make_targets([0, 0]))
    output.total.backward()
    p = predictions.cls_logits.detach().sigmoid()
    negative = 0.75 * p**2 * -torch.log1p(-p)
    assert values(output) == pytest.approx([negative.sum().item()] * 2 + [0, 0])
    assert predictions.cls_logits.grad.isfinite().all()
    assert predictions.cls_logits.grad.abs().sum() > 0
    assert predictions.reg_logits.grad is not None
    assert not predictions.reg_logits.grad.any()


@STATIC
def test_list_of_targets_equals_batch(static: bool) -> None:
    predictions, targets = make_predictions(), make_targets([4, 2])
    loss = PPYoloELoss(use_static_assigner=static)
    assert values(loss(predictions, targets)) == values(loss(predictions, make_batch(targets)))


@STATIC
def test_order_of_objects_and_images_does_not_matter(static: bool) -> None:
    predictions, targets = make_predictions(dtype=torch.float64), make_targets([7, 4])
    shuffled = [Target(boxes=target["boxes"].flip(0), labels=target["labels"].flip(0)) for target in reversed(targets)]
    mirrored = predictions._replace(
        cls_logits=predictions.cls_logits.flip(0), reg_logits=predictions.reg_logits.flip(0)
    )
    loss = PPYoloELoss(use_static_assigner=static)
    assert values(loss(mirrored, shuffled)) == pytest.approx(values(loss(predictions, targets)), rel=1e-12)


@STATIC
def test_crowd_is_background(static: bool) -> None:
    predictions, targets = make_predictions(), make_targets([3, 2])
    loss = PPYoloELoss(use_static_assigner=static)
    expected = values(loss(predictions, targets))
    crowd = make_targets([2, 1], seed=9)
    mixed = [
        Target(
            boxes=torch.cat((c["boxes"], t["boxes"])),
            labels=torch.cat((c["labels"], t["labels"])),
            iscrowd=torch.arange(len(c["labels"]) + len(t["labels"])) < len(c["labels"]),
        )
        for c, t in zip(crowd, targets, strict=True)
    ]
    assert values(loss(predictions, mixed)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    half = make_predictions()
    half = with_grad(half._replace(cls_logits=half.cls_logits.to(dtype), reg_logits=half.reg_logits.to(dtype)))
    full = half._replace(cls_logits=half.cls_logits.float(), reg_logits=half.reg_logits.float())
    targets, loss = make_targets([3, 2]), PPYoloELoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = loss(half, targets)
    assert output.total.dtype == torch.float32
    assert values(output) == values(loss(full, targets))
    output.total.backward()
    assert half.cls_logits.grad.dtype == half.reg_logits.grad.dtype == dtype


def test_float64_predictions_stay_float64() -> None:
    assert PPYoloELoss()(make_predictions(dtype=torch.float64), make_targets([1, 1])).total.dtype == torch.float64


@pytest.mark.parametrize("reg_max", [7, 16])
def test_reg_max_is_taken_from_the_logits(reg_max: int) -> None:
    assert PPYoloELoss()(make_predictions(reg_max=reg_max), make_targets([2, 2])).total.isfinite()


@pytest.mark.parametrize(
    "option",
    [
        {"use_varifocal_loss": False},
        {"use_static_assigner": True},
        {"classification_loss_weight": 2.0},
        {"iou_loss_weight": 1.0},
        {"dfl_loss_weight": 1.0},
        {"assigner": TaskAlignedAssigner(topk=1)},
        {"use_static_assigner": True, "static_assigner": TaskAlignedAssigner(topk=1)},
    ],
    ids=lambda option: "+".join(option),
)
def test_each_option_changes_the_loss(option: dict[str, object]) -> None:
    predictions, targets = make_predictions(96), make_targets([6, 3], 96)
    assert values(PPYoloELoss(**option)(predictions, targets)) != values(PPYoloELoss()(predictions, targets))


def test_assigner_may_be_switched_between_steps() -> None:
    predictions, targets = make_predictions(96), make_targets([6, 3], 96)
    loss = PPYoloELoss(use_static_assigner=True)
    loss.use_static_assigner = False
    assert values(loss(predictions, targets)) == values(PPYoloELoss()(predictions, targets))


def test_terms_are_detached() -> None:
    output = PPYoloELoss()(with_grad(make_predictions()), make_targets([2, 2]))
    assert output.total.requires_grad
    assert not any(term.requires_grad for term in output.terms.values())


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="built with num_classes=80 and the detector predicts 3: leave"):
        PPYoloELoss(num_classes=80)(make_predictions(), make_targets([1, 1]))


@pytest.mark.parametrize("name", ["classification_loss_weight", "iou_loss_weight", "dfl_loss_weight"])
@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused(name: str, weight: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}={weight} is no weight of a loss: choose a finite number, 0"):
        PPYoloELoss(**{name: weight})  # type: ignore[arg-type]
    PPYoloELoss(**{name: 0.0})  # type: ignore[arg-type]


def test_a_loss_of_nothing_and_of_no_class_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="dfl_loss_weight are all 0, which trains nothing: make one positive"):
        PPYoloELoss(classification_loss_weight=0.0, iou_loss_weight=0.0, dfl_loss_weight=0.0)
    with pytest.raises(ConfigurationError, match="num_classes=0 is no number of classes: leave it out"):
        PPYoloELoss(num_classes=0)


def test_label_out_of_range_is_refused() -> None:
    targets = make_targets([1, 1])
    targets[1]["labels"][0] = 3
    with pytest.raises(AnnotationError, match="image 1 has an object with label 3"):
        PPYoloELoss()(make_predictions(), targets)


def test_fifty_batches_whose_objects_match_nothing_are_refused() -> None:
    predictions = make_predictions()
    normalised = [Target(boxes=torch.tensor([[0.1, 0.2, 0.5, 0.9]]), labels=torch.tensor([0]))] * 2
    nothing = make_targets([0, 0])
    crowd = [Target(**make_targets([1])[0], iscrowd=torch.tensor([True]))] * 2
    loss = PPYoloELoss()
    for targets in [nothing] * 60 + [crowd] * 60 + [normalised] * 49:
        loss(predictions, targets)
    loss.eval()(predictions, normalised)
    message = r"first 50 batches .* not inside \[0\.1.*\] on images of 64x64 pixels: boxes must be xyxy pixels"
    with pytest.raises(AnnotationError, match=message):
        loss.train()(predictions, normalised)

    loss = PPYoloELoss()
    loss(predictions, make_targets([2, 0]))  # from the first match on tiny objects are no mistake
    for _ in range(60):
        assert loss(predictions, normalised).total.isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_half_precision_are_those_of_float32_rounded(dtype: torch.dtype) -> None:
    predictions, targets = make_predictions(96), make_targets([9, 2], 96)
    half = with_grad(
        predictions._replace(cls_logits=predictions.cls_logits.to(dtype), reg_logits=predictions.reg_logits.to(dtype))
    )
    full = with_grad(half._replace(cls_logits=half.cls_logits.float(), reg_logits=half.reg_logits.float()))
    for logits in (half, full):
        PPYoloELoss()(logits, targets).total.backward()
    for name in ("cls_logits", "reg_logits"):
        ours, theirs = getattr(half, name).grad, getattr(full, name).grad
        torch.testing.assert_close(ours, theirs.to(dtype), rtol=0, atol=0)


def test_logits_that_are_not_contiguous_train_alike() -> None:
    predictions, targets = make_predictions(96, dtype=torch.float64), make_targets([9, 2], 96)
    strided = predictions._replace(
        cls_logits=predictions.cls_logits.transpose(1, 2).contiguous().transpose(1, 2),
        reg_logits=predictions.reg_logits.transpose(0, 1).contiguous().transpose(0, 1),
    )
    assert not strided.cls_logits.is_contiguous()
    gradients = []
    for logits in (predictions, strided):
        leaves = logits.cls_logits.requires_grad_(), logits.reg_logits.requires_grad_()
        gradients.append(torch.autograd.grad(PPYoloELoss()(logits, targets).total, leaves))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.slow
@STATIC
def test_the_loss_of_a_compiled_detector_trains_it_alike(static: bool) -> None:
    torch.manual_seed(0)
    detector, targets = tiny_detector(), make_targets([4, 2], 96)
    images = torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8)
    loss, gradients = PPYoloELoss(use_static_assigner=static), []
    for model in (detector, torch.compile(detector, backend="aot_eager")):
        detector.zero_grad()
        output = loss(model(images), targets)
        output.total.backward()
        gradients.append([values(output), [parameter.grad.clone() for parameter in detector.parameters()]])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_loss_and_assigner_parse_from_a_config_and_are_rebuilt_from_their_spec() -> None:
    parser = ArgumentParser()
    parser.add_argument("--loss", type=DetectionLoss)
    config = parser.parse_args(
        [
            "--loss=PPYoloELoss",
            "--loss.use_static_assigner=true",
            "--loss.static_assigner=ATSSAssigner",
            "--loss.static_assigner.topk=5",
        ]
    )
    loss = build(spec_of(parser.instantiate(config).loss))
    assert isinstance(loss, PPYoloELoss)
    assert loss.use_static_assigner
    assert isinstance(loss.static_assigner, ATSSAssigner)
    assert loss.static_assigner.topk == 5
