import copy
from functools import partial
from itertools import pairwise

import pytest
import torch

from detlit.errors import ConfigurationError
from detlit.models import Detector
from detlit.models.backbones import CSPResNet
from detlit.models.heads import PPYoloEHead
from detlit.models.necks import PPYoloENeck, YoloNASNeck
from detlit.spec import build, spec_of
from detlit.structures import Level


def random_images(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


@pytest.fixture
def detector() -> Detector:
    """PP-YOLOE with 2 classes and a few thousand parameters, its last layers not at zero."""
    torch.manual_seed(0)
    backbone = CSPResNet(stem_channels=4, stage_channels=[4, 8, 8, 16], num_blocks=[1, 2, 1, 1])
    neck = partial(PPYoloENeck, stage_channels=[16, 8, 4], num_blocks=2)
    detector = Detector(backbone, neck, PPYoloEHead, num_classes=2)
    for level in detector.head.levels:
        torch.nn.init.normal_(level.cls_pred.weight, std=0.1)
        torch.nn.init.normal_(level.reg_pred.weight, std=0.1)
    return detector


@pytest.mark.parametrize("training", [True, False])
def test_levels_go_from_coarse_to_fine(detector: Detector, training: bool) -> None:
    predictions = detector.train(training)(random_images(64, 96))
    assert predictions.levels == (Level(2, 3, 32), Level(4, 6, 16), Level(8, 12, 8))
    assert predictions.cls_logits.shape == (2, 126, 2)
    assert predictions.reg_logits.shape == (2, 126, 68)
    assert predictions.anchor_points[[0, 1, 3, 6, -1]].tolist() == [[16, 16], [48, 16], [16, 48], [8, 8], [92, 60]]
    assert predictions.strides[[0, 6, -1], 0].tolist() == [32, 16, 8]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_parameter_gets_a_gradient(detector: Detector, memory_format: torch.memory_format) -> None:
    detector = detector.to(memory_format=memory_format)
    predictions = detector(random_images().contiguous(memory_format=memory_format))
    (predictions.cls_logits.square().sum() + predictions.reg_logits.square().sum()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_memory_format_does_not_change_gradients(detector: Detector) -> None:
    images = random_images(128, 128)
    twin = copy.deepcopy(detector).double().to(memory_format=torch.channels_last)
    for model, x in ((detector.double(), images), (twin, images.contiguous(memory_format=torch.channels_last))):
        model(x).cls_logits.square().sum().backward()
    for ours, other in zip(detector.parameters(), twin.parameters(), strict=True):
        if ours.grad is not None:  # the branch of the box sides has no part in the sum
            torch.testing.assert_close(ours.grad, other.grad.contiguous())


def test_bf16_autocast_trains(detector: Detector) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        predictions = detector(random_images())
    assert predictions.cls_logits.dtype == torch.bfloat16
    assert predictions.anchor_points.dtype == torch.float32
    (predictions.cls_logits.float().square().sum() + predictions.reg_logits.float().square().sum()).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in detector.parameters())


def test_new_head_starts_rare_and_uniform() -> None:
    head = PPYoloEHead([4], [8], 3)
    predictions = head([torch.randn(1, 4, 2, 2)])
    torch.testing.assert_close(predictions.cls_logits.sigmoid(), torch.full((1, 4, 3), 0.01))
    torch.testing.assert_close(predictions.reg_logits, torch.ones(1, 4, 68))


@pytest.mark.parametrize(("num_blocks", "names"), [(1, "0 spp"), (2, "0 spp 1"), (3, "0 1 spp 2"), (4, "0 1 spp 2 3")])
def test_pooling_sits_in_the_middle_of_the_coarsest_stage(num_blocks: int, names: str) -> None:
    neck = PPYoloENeck([8, 8, 8], [8, 16, 32], stage_channels=[8, 8, 8], num_blocks=num_blocks)
    assert [name for name, _ in neck.fpn5.bottlenecks.named_children()] == names.split()


def test_neck_leaves_finer_maps_over() -> None:
    features = [torch.randn(1, channels, side, side) for channels, side in ((3, 32), (4, 16), (6, 8), (8, 4), (10, 2))]
    torch.manual_seed(0)
    wide = PPYoloENeck([3, 4, 6, 8, 10], [2, 4, 8, 16, 32], stage_channels=[8, 8, 8], num_blocks=1).eval()
    torch.manual_seed(0)
    narrow = PPYoloENeck([6, 8, 10], [8, 16, 32], stage_channels=[8, 8, 8], num_blocks=1).eval()
    for ours, other in zip(wide(features), narrow(features[2:]), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=0)
    assert [x.shape[-1] for x in wide(features)] == [2, 4, 8]


def test_rebuilt_from_its_spec(detector: Detector) -> None:
    again = build(spec_of(detector))
    again.load_state_dict(detector.state_dict())
    images = random_images()
    torch.testing.assert_close(again.eval()(images)[:4], detector.eval()(images)[:4], rtol=0, atol=0)


@pytest.mark.parametrize("strides", [[8, 16], [4, 8, 16], [8, 16, 32, 64], [16, 16, 16]])
def test_backbones_with_other_strides_are_refused(strides: list[int]) -> None:
    necks = {
        "YoloNASNeck merges feature maps of strides 4, 8, 16, 32": partial(
            YoloNASNeck, stage_channels=[8] * 4, hidden_channels=[4] * 4, num_blocks=[1] * 4
        ),
        "PPYoloENeck merges feature maps of strides 8, 16, 32": partial(
            PPYoloENeck, stage_channels=[8] * 3, num_blocks=1
        ),
    }
    returned = ", ".join(map(str, strides))
    for message, neck in necks.items():
        with pytest.raises(ConfigurationError, match=f"{message}, but the backbone returns {returned}: choose layers"):
            neck([8] * len(strides), strides)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="have 3 and 2 entries: give each one entry per stage"):
        CSPResNet(4, [8, 8, 8], [1, 1])
    with pytest.raises(ConfigurationError, match=r"stage_channels=\[8\] and num_blocks=1 do not fit PPYoloENeck"):
        PPYoloENeck([8] * 3, [8, 16, 32], stage_channels=[8], num_blocks=1)
    with pytest.raises(ConfigurationError, match="num_blocks=0 do not fit PPYoloENeck"):
        PPYoloENeck([8] * 3, [8, 16, 32], stage_channels=[8] * 3, num_blocks=0)
    with pytest.raises(ConfigurationError, match="num_classes=0 leaves nothing to detect"):
        PPYoloEHead([8], [8], 0)


def test_backbone_stages_halve(detector: Detector) -> None:
    features = detector.backbone(torch.rand(1, 3, 64, 64))
    assert [x.shape[1] for x in features] == [4, 8, 8, 16]
    assert all(fine.shape[2] == 2 * coarse.shape[2] for fine, coarse in pairwise(features))
    assert detector.backbone.strides == (4, 8, 16, 32)
