import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models import Detector, presets
from detlit.models.backbones import CSPResNet
from detlit.models.heads import PPYoloEHead
from detlit.models.layers import ConvBNReLU, ConvBNSiLU, QARepVGGBlock
from detlit.models.layers.fusion import Fusable, fold_batch_norm
from detlit.models.necks import PPYoloENeck
from detlit.spec import build, spec_of
from tests.tiny import tiny_detector

DEPLOYED = {
    "yolo_nas_s": 12_167_600,
    "yolo_nas_m": 31_894_002,
    "yolo_nas_l": 41_984_984,
    "ppyoloe_s": 7_918_060,
    "ppyoloe_m": 23_413_500,
    "ppyoloe_l": 52_178_012,
    "ppyoloe_x": 98_395_084,
}
KINDS = pytest.mark.parametrize("full", [False, True], ids=["partial", "full"])


def tiny_ppyoloe() -> Detector:
    backbone = CSPResNet(stem_channels=4, stage_channels=[4, 8, 8, 16], num_blocks=[1, 2, 1, 1])
    return Detector(backbone, partial(PPYoloENeck, stage_channels=[16, 8, 4], num_blocks=2), PPYoloEHead, 3)


def trained(module: nn.Module) -> Any:
    """The module in float64 and evaluation, with norms that are no identity."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            for values in (child.weight, child.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (child.bias, child.running_mean):
                nn.init.normal_(values)
    return module.double().eval()


@pytest.fixture(params=[tiny_detector, tiny_ppyoloe], ids=["yolo_nas", "ppyoloe"])
def detector(request: pytest.FixtureRequest) -> Detector:
    torch.manual_seed(0)
    detector: Detector = trained(request.param())
    return detector


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_same(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max()))


@KINDS
def test_fused_detector_computes_the_same(detector: Detector, images: Tensor, full: bool) -> None:
    expected = detector(images)
    assert detector.fuse(full) is detector
    for ours, theirs in zip(detector(images)[:2], expected[:2], strict=True):
        assert_same(ours, theirs)


@KINDS
@pytest.mark.parametrize("in_channels", [4, 16])
@pytest.mark.parametrize(("out_channels", "stride"), [(4, 1), (16, 1), (4, 2)])
def test_fused_qarepvgg_block(in_channels: int, out_channels: int, stride: int, full: bool) -> None:
    block = trained(QARepVGGBlock(in_channels, out_channels, stride))
    x = torch.randn(2, in_channels, 6, 8, dtype=torch.float64)
    expected = block(x)
    for _ in range(2):
        block.fuse(full)
        assert_same(block(x), expected)
    norm = {} if full else {"post_bn.weight": (out_channels,), "post_bn.bias": (out_channels,)}
    conv = {"conv.weight": (out_channels, in_channels, 3, 3), "conv.bias": (out_channels,)}
    assert {name: value.shape for name, value in block.named_parameters()} == norm | conv


def test_partial_fusion_may_be_followed_by_full(detector: Detector, images: Tensor) -> None:
    twin = copy.deepcopy(detector).fuse(full=True)
    detector.fuse().fuse().fuse(full=True).fuse(full=True)
    assert detector.fused == "full"
    assert not [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    assert_same(detector(images).cls_logits, twin(images).cls_logits)


@pytest.mark.parametrize("name", DEPLOYED)
def test_number_of_deployed_parameters(name: str) -> None:
    with torch.device("meta"):
        detector = getattr(presets, name)().eval().fuse(full=True)
    assert sum(parameter.numel() for parameter in detector.parameters()) == DEPLOYED[name]


def test_partially_fused_detector_trains(detector: Detector, images: Tensor) -> None:
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    predictions = detector.fuse().train()(images)
    (predictions.cls_logits.square().sum() + predictions.reg_logits.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    assert 0 < len([module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]) < len(norms)


def test_frozen_layers_stay_frozen(detector: Detector) -> None:
    detector.backbone.requires_grad_(False)
    detector.fuse()
    assert not any(parameter.requires_grad for parameter in detector.backbone.parameters())
    assert all(parameter.requires_grad for parameter in detector.neck.parameters())


def test_folding_leaves_the_layers_alone() -> None:
    conv, bn = trained(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    weight = conv.weight.detach().clone()
    folded = fold_batch_norm(conv, bn)
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    assert_same(folded(x), bn(conv(x)))
    torch.testing.assert_close(conv.weight, weight, rtol=0, atol=0)
    assert conv.bias is None


@pytest.mark.parametrize("full", [None, "partial", "full"])
def test_record_rebuilds_the_fused_detector(detector: Detector, images: Tensor, full: str | None) -> None:
    if full is not None:
        detector.fuse(full=full == "full")
    again = build(spec_of(detector))
    assert again.fused == detector.fused == full
    assert again.training
    again.double().eval().load_state_dict(detector.state_dict())
    torch.testing.assert_close(again(images)[:2], detector(images)[:2], rtol=0, atol=0)


@pytest.mark.parametrize("layer", [QARepVGGBlock(4, 4), ConvBNReLU(4, 4), ConvBNSiLU(4, 4), tiny_detector()])
def test_training_mode_is_refused(layer: Fusable | Detector) -> None:
    name = type(layer).__name__
    with pytest.raises(ConfigurationError, match=f"^{name} in training mode normalizes by the batch.*: call eval"):
        layer.fuse(full=False)


def test_going_back_to_partial_fusion_is_refused(detector: Detector) -> None:
    with pytest.raises(ConfigurationError, match="no normalization left to keep in partial fusion: build the detector"):
        detector.fuse(full=True).fuse()


def test_unknown_kind_of_fusion_is_refused() -> None:
    spec = spec_of(tiny_detector())
    spec["init_args"]["fused"] = "half"
    with pytest.raises(ConfigurationError, match="fused='half' is no kind of fusion: choose 'partial', 'full' or None"):
        build(spec)


def test_foreign_layers_stay_as_they_are() -> None:
    class Foreign(nn.Module):
        def fuse(self) -> None:
            raise AssertionError

    detector = tiny_detector().eval()
    detector.backbone.add_module("foreign", Foreign())
    detector.fuse(full=True)
