"""Networks of other libraries under our necks, without weights, so that nothing is downloaded."""

import copy
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from detlit.errors import ConfigurationError, MissingExtraError
from detlit.losses import PPYoloELoss
from detlit.models import Detector
from detlit.models.backbones import Backbone, TimmBackbone, TorchvisionBackbone
from detlit.models.heads import PPYoloEHead, YoloNASHead
from detlit.models.necks import PPYoloENeck, YoloNASNeck
from detlit.spec import build, spec_of
from detlit.structures import Target

RESNET = ["layer1", "layer2", "layer3", "layer4"]
PARTS = {
    "yolo_nas": (
        partial(YoloNASNeck, stage_channels=[8] * 4, hidden_channels=[4] * 4, num_blocks=[1] * 4),
        partial(YoloNASHead, hidden_channels=[8] * 3),
    ),
    "ppyoloe": (partial(PPYoloENeck, stage_channels=[16, 8, 8], num_blocks=1), PPYoloEHead),
}


def torchvision_resnet() -> Backbone:
    return TorchvisionBackbone("resnet18", RESNET)


def torchvision_mobilenet() -> Backbone:
    return TorchvisionBackbone("mobilenet_v3_small", ["features.1", "features.3", "features.8", "features.12"])


def timm_resnet() -> Backbone:
    pytest.importorskip("timm")
    return TimmBackbone("resnet18")


def timm_channels_last() -> Backbone:
    pytest.importorskip("timm")
    return TimmBackbone("mambaout_femto", out_indices=[0, 1, 2, 3])


BACKBONES = [torchvision_resnet, torchvision_mobilenet, timm_resnet, timm_channels_last]


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("make_backbone", BACKBONES)
def test_one_step_of_training(make_backbone: Callable[[], Backbone], parts: str) -> None:
    torch.manual_seed(0)
    detector = Detector(make_backbone(), *PARTS[parts], num_classes=2)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    targets = [Target(boxes=torch.tensor([[8.0, 8.0, 40.0, 48.0]]), labels=torch.tensor([i])) for i in range(2)]
    PPYoloELoss()(detector(images), targets).total.backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("make_backbone", BACKBONES)
def test_channels_and_strides_are_those_of_the_maps(make_backbone: Callable[[], Backbone]) -> None:
    backbone = make_backbone()
    features = backbone.eval()(torch.rand(1, 3, 64, 96))
    shapes = [(c, 64 // s, 96 // s) for c, s in zip(backbone.out_channels, backbone.strides, strict=True)]
    assert [x.shape[1:] for x in features] == shapes
    assert backbone.strides[-4:] == (4, 8, 16, 32)


def test_out_indices_choose_the_maps() -> None:
    pytest.importorskip("timm")
    assert TimmBackbone("resnet18").strides == (2, 4, 8, 16, 32)
    backbone = TimmBackbone("resnet18", out_indices=[2, 3, 4])
    assert (backbone.strides, backbone.out_channels) == ((8, 16, 32), (128, 256, 512))


def test_copies_keep_the_mode() -> None:
    backbone = torchvision_resnet().eval()
    images = torch.rand(1, 3, 64, 64)
    twin = copy.deepcopy(backbone)
    assert not any(module.training for module in twin.modules())
    torch.testing.assert_close(twin(images), backbone(images), rtol=0, atol=0)
    assert all(module.training for module in copy.deepcopy(backbone.train()).modules())


def test_measuring_leaves_statistics_alone() -> None:
    backbone = torchvision_resnet()
    assert all(module.training for module in backbone.modules())
    assert all(not value for name, value in backbone.named_buffers() if name.endswith("num_batches_tracked"))


@pytest.mark.parametrize("make_backbone", [torchvision_resnet, timm_resnet])
def test_rebuilt_from_its_spec(make_backbone: Callable[[], Backbone]) -> None:
    neck, head = PARTS["ppyoloe"]
    detector = Detector(make_backbone(), neck, head, num_classes=2).eval()
    again = build(spec_of(detector)).eval()
    again.load_state_dict(detector.state_dict())
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(again(images)[:4], detector(images)[:4], rtol=0, atol=0)


def test_checkpoints_rebuild_without_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time, weights are asked for; the record asks for none."""
    import torchvision.models

    asked: list[Any] = []

    def get_model(name: str, weights: str | None) -> torch.nn.Module:
        asked.append(weights)
        return torchvision.models.resnet18()

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    backbone = TorchvisionBackbone("resnet18", RESNET, pretrained=True)
    build(spec_of(backbone))
    assert asked == ["DEFAULT", None]


def test_timm_is_asked_for_weights_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create_model, asked = timm.create_model, []

    def without_download(name: str, pretrained: bool, **arguments: Any) -> torch.nn.Module:
        asked.append(pretrained)
        network: torch.nn.Module = create_model(name, pretrained=False, **arguments)
        return network

    monkeypatch.setattr(timm, "create_model", without_download)
    build(spec_of(TimmBackbone("resnet18", pretrained=True)))
    assert asked == [True, False]


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"run pip install 'detlit\[timm\]'"):
        TimmBackbone("resnet18")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nope"}, r"name='nope', pretrained=False, out_indices=None \(Unknown model \(nope\)\): choose"),
        ({"name": "resnet18", "out_indices": [1, 9]}, r"out_indices=\[1, 9\] \(list index out of range\)"),
    ],
)
def test_unknown_networks_of_timm_are_refused(arguments: dict[str, Any], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigurationError, match=message):
        TimmBackbone(**arguments)


@pytest.mark.parametrize(
    ("name", "return_nodes", "message"),
    [
        ("nope", RESNET, "no model name='nope': choose from"),
        ("resnet18", ["layer9"], r"resnet18 lacks one of return_nodes=\['layer9'\]: choose from"),
        ("resnet18", ["fc"], r"fc of torchvision's resnet18 returns \(1, 1000\), which is no feature map"),
        ("swin_t", ["features.1"], r"returns \(1, 32, 32, 96\), which is no feature map"),
        ("vit_b_16", ["encoder"], r"vit_b_16 takes no image of 128x128 pixels \(.*\): choose"),
    ],
)
def test_unknown_networks_of_torchvision_are_refused(name: str, return_nodes: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TorchvisionBackbone(name, return_nodes)
