"""Which layers are replaced, and which tensors are rounded."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models import Detector, ppyoloe_s, yolo_nas_s
from detlit.models.backbones.torchvision import TorchvisionBackbone
from detlit.models.heads import YoloNASHead
from detlit.models.necks import YoloNASNeck
from detlit.quantization import Quantization, calibrate, needs_calibration, without_rounding
from detlit.quantization.calibration import named_quantizers
from detlit.quantization.layers import ActivationQuantizer, QuantizedConvolution, QuantizedOutput
from detlit.spec import build, spec_of
from tests.tiny import tiny_detector


def fused(detector: Detector) -> Detector:
    return detector.eval().fuse()


def images(size: int = 64) -> Tensor:
    return torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def logits(detector: Detector) -> Tensor:
    with torch.no_grad():
        predictions = detector(images())
    return torch.cat((predictions.cls_logits, predictions.reg_logits), dim=-1)


def float_convolutions(detector: Detector) -> list[str]:
    return [
        name
        for name, part in detector.named_modules()
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)) and not isinstance(part, QuantizedConvolution)
    ]


def test_the_names_of_weights_stay() -> None:
    plain = fused(tiny_detector())
    before = set(plain.state_dict())
    after = set(plain.quantize(Quantization()).state_dict())
    assert before < after
    assert {name.rpartition(".")[2] for name in after - before} == {"scale", "zero_point"}


def test_it_computes_the_same_until_it_rounds() -> None:
    torch.manual_seed(0)
    plain = fused(tiny_detector())
    expected = logits(plain)
    quantized = copy.deepcopy(plain).quantize(Quantization())
    with without_rounding(quantized):
        assert torch.equal(logits(quantized), expected)
    calibrate(quantized, [images()])
    assert not torch.equal(logits(quantized), expected)
    with without_rounding(quantized):
        assert torch.equal(logits(quantized), expected)


def test_every_tensor_is_rounded_where_it_is_made() -> None:
    detector = fused(yolo_nas_s(num_classes=3)).quantize(Quantization())
    assert float_convolutions(detector) == []
    outside = {name for name, part in detector.named_modules() if isinstance(part, (nn.ReLU, nn.Conv2d))}
    assert all(".inner" in name for name in outside if isinstance(detector.get_submodule(name), nn.ReLU))
    rounded_at_inputs = [
        name for name, part in detector.named_modules() if getattr(part, "input_quantizer", None) is not None
    ]
    assert rounded_at_inputs == ["backbone.stem.conv"]  # of the image
    rounded_without_activation = [
        name for name, part in detector.named_modules() if getattr(part, "output_quantizer", None) is not None
    ]
    assert rounded_without_activation == ["neck.up1.upsample", "neck.up2.upsample"]


def test_channel_attention_stays_in_floating_point() -> None:
    detector = fused(ppyoloe_s(num_classes=3)).quantize(Quantization())
    assert {name.rpartition(".")[2] for name in float_convolutions(detector)} == {"fc", "project"}
    heads = detector.head.levels[0]
    assert heads.cls_stem.conv.conv.input_quantizer is not None  # what the attention returns is rounded again


def test_silu_is_between_two_quantizers_on_a_cpu_and_part_of_the_kernel_in_tensorrt() -> None:
    for backend, separate in (("cpu", True), ("tensorrt", False)):
        detector = fused(ppyoloe_s(num_classes=3)).quantize(Quantization(backend))  # type: ignore[arg-type]
        act = detector.backbone.stem.conv1.act
        assert isinstance(act, QuantizedOutput)
        assert (act.input_quantizer is not None) == separate


@pytest.mark.parametrize("backend", ["cpu", "tensorrt"])
def test_backends_differ_in_the_kind_of_integers(backend: str) -> None:
    detector = fused(tiny_detector()).quantize(Quantization(backend))  # type: ignore[arg-type]
    calibrate(detector, [images()])
    for levels in named_quantizers(detector).values():
        assert levels.symmetric == (backend == "tensorrt")
        assert (float(levels.zero_point) == 0) or backend == "cpu"


def test_for_tensorrt_all_that_a_concatenation_joins_has_one_scale() -> None:
    detector = fused(tiny_detector()).quantize(Quantization("tensorrt"))
    up = detector.neck.up1
    assert up.concat.quantizer is up.upsample.output_quantizer
    assert up.concat.quantizer is up.reduce_same.act.quantizer
    assert up.concat.quantizer is up.downsample.act.quantizer
    pooled = detector.backbone.spp
    assert pooled.pooling.concat.quantizer is pooled.conv1.act.quantizer  # through the pooling
    on_cpu = fused(tiny_detector()).quantize(Quantization("cpu"))
    assert len(named_quantizers(on_cpu)) == len({id(part) for part in on_cpu.modules() if is_quantizer(part)})
    assert len(named_quantizers(detector)) < len(named_quantizers(on_cpu))


def is_quantizer(part: nn.Module) -> bool:
    return isinstance(part, ActivationQuantizer)


@pytest.mark.parametrize(
    ("skip", "kept"),
    [
        (["backbone.stem"], {"backbone.stem.conv"}),
        (["head.levels.*.cls_pred"], {f"head.levels.{i}.cls_pred" for i in range(3)}),
        (["ConvTranspose2d"], {"neck.up1.upsample", "neck.up2.upsample"}),
        (["SPP", "backbone.stem"], {"backbone.stem.conv", "backbone.spp.conv1.conv", "backbone.spp.conv2.conv"}),
    ],
    ids=["name", "pattern", "class", "several"],
)
def test_what_is_skipped_stays(skip: list[str], kept: set[str]) -> None:
    detector = fused(tiny_detector()).quantize(Quantization(skip=skip))
    assert set(float_convolutions(detector)) == kept
    calibrate(detector, [images()])
    assert logits(detector).isfinite().all()


def test_behind_what_is_skipped_the_input_is_rounded() -> None:
    detector = fused(tiny_detector()).quantize(Quantization(skip=["backbone.stem"]))
    stage = detector.backbone.stages[0]
    assert stage.downsample.conv.input_quantizer is not None
    assert stage.blocks.conv1.conv.input_quantizer is None


def test_a_foreign_backbone_stays_and_the_neck_rounds_its_maps() -> None:
    detector = Detector(
        TorchvisionBackbone("resnet18", [f"layer{i}" for i in range(1, 5)]),
        partial(YoloNASNeck, stage_channels=[16, 8, 16, 24], hidden_channels=[8] * 4, num_blocks=[1] * 4),
        partial(YoloNASHead, hidden_channels=[8, 8, 8]),
        num_classes=3,
    )
    fused(detector).quantize(Quantization())
    calibrate(detector, [images()])
    assert all(name.startswith("backbone.") for name in float_convolutions(detector))
    assert detector.neck.up1.conv.conv.input_quantizer is not None
    assert logits(detector).isfinite().all()


def test_fewer_bits_round_more() -> None:
    torch.manual_seed(0)
    plain = fused(tiny_detector())
    expected, errors = logits(plain), []
    for bits in (8, 6, 4):
        quantized = copy.deepcopy(plain).quantize(Quantization(weight_bits=bits))
        errors.append(float((logits(quantized) - expected).square().mean()))
    assert errors == sorted(errors)
    assert errors[0] < errors[2] / 10


def test_branches_are_merged_first() -> None:
    detector = tiny_detector().eval()
    expected = logits(detector)
    detector.quantize(Quantization())
    assert detector.fused == "partial"
    with without_rounding(detector):
        torch.testing.assert_close(logits(detector), expected, rtol=1e-3, atol=1e-3)


def test_full_fusion_afterwards_computes_the_same() -> None:
    torch.manual_seed(0)
    detector = fused(tiny_detector()).quantize(Quantization())
    with without_rounding(detector):
        expected = logits(detector)
    assert detector.fuse(full=True).fused == "full"
    assert not [part for part in detector.modules() if isinstance(part, nn.BatchNorm2d)]
    with without_rounding(detector):
        torch.testing.assert_close(logits(detector), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("full", [False, True])
def test_it_is_rebuilt_from_its_record(full: bool) -> None:
    detector = fused(tiny_detector()).quantize(Quantization("cpu", skip=["head"], weight_bits=7))
    calibrate(detector, [images()])
    if full:
        detector.fuse(full=True)
    twin = build(spec_of(detector)).eval()
    assert needs_calibration(twin)
    twin.load_state_dict(detector.state_dict())
    assert not needs_calibration(twin)
    assert torch.equal(logits(twin), logits(detector))


def test_training_mode_and_memory_format_stay() -> None:
    detector = tiny_detector().to(memory_format=torch.channels_last)
    assert detector.train().quantize(Quantization()).training
    assert all(part.training for part in detector.modules())
    assert not detector.eval().training


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        (lambda: Quantization("gpu"), "backend='gpu' is unknown: choose one of cpu, tensorrt"),  # type: ignore[arg-type]
        (lambda: Quantization(weight_bits=1), "weight_bits=1 is out of range: choose 2 to 8"),
        (lambda: Quantization(skip=["neck.upp"]), "skip names 'neck.upp', which no layer of the detector is called"),
        (lambda: Quantization(skip=["backbone", "neck", "head"]), "leaves nothing to quantize"),
    ],
    ids=["backend", "bits", "skip", "everything"],
)
def test_arguments_that_make_no_sense_are_refused(quantization: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fused(tiny_detector()).quantize(quantization())  # type: ignore[operator]


def test_twice_is_refused() -> None:
    detector = fused(tiny_detector()).quantize(Quantization())
    with pytest.raises(ConfigurationError, match=r"quantized already: .* write this one with detlit export"):
        detector.quantize(Quantization())
