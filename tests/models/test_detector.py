import copy
import io
from functools import partial

import pytest
import torch

from detlit.errors import ConfigurationError
from detlit.models import Detector
from detlit.models.backbones import YoloNASBackbone
from detlit.models.heads import YoloNASHead
from detlit.models.necks import YoloNASNeck
from detlit.spec import build, spec_of
from detlit.structures import Level, Preprocessing, RawPredictions

IMAGENET = Preprocessing(channel_order="BGR", mean=(0.406, 0.456, 0.485), std=(0.225, 0.224, 0.229))


def random_images(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("training", [True, False])
def test_predictions_follow_the_contract(tiny_detector: Detector, training: bool) -> None:
    predictions = tiny_detector.train(training)(random_images(64, 96))
    assert isinstance(predictions, RawPredictions)
    assert predictions.levels == (Level(8, 12, 8), Level(4, 6, 16), Level(2, 3, 32))
    assert predictions.cls_logits.shape == (2, 126, 2)
    assert predictions.reg_logits.shape == (2, 126, 68)
    assert predictions.anchor_points[[0, 1, 12, 96, -1]].tolist() == [[4, 4], [12, 4], [4, 12], [8, 8], [80, 48]]
    assert predictions.strides[[0, 96, -1], 0].tolist() == [8, 16, 32]
    assert tiny_detector.num_classes == 2


def test_bytes_and_floats_are_the_same_image(tiny_detector: Detector) -> None:
    images = random_images()
    for ours, twin in zip(tiny_detector.eval()(images)[:2], tiny_detector(images / 255)[:2], strict=True):
        torch.testing.assert_close(ours, twin, rtol=0, atol=0)


def test_set_preprocessing_changes_input_and_record(tiny_detector: Detector) -> None:
    tiny_detector.double().eval()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET.mean, IMAGENET.std))
    expected = tiny_detector((images.flip(1) - mean) / std).cls_logits
    tiny_detector.set_preprocessing(IMAGENET)
    torch.testing.assert_close(tiny_detector(images).cls_logits, expected)
    again = build(spec_of(tiny_detector))
    assert again.preprocessing == tiny_detector.preprocessing == IMAGENET
    again.load_state_dict(tiny_detector.state_dict())
    torch.testing.assert_close(again.double().eval()(images).cls_logits, expected)


def test_copies_predict_the_same(tiny_detector: Detector) -> None:
    tiny_detector.eval()
    images, buffer = random_images(), io.BytesIO()
    expected = tiny_detector(images)
    torch.save(tiny_detector, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(tiny_detector), torch.load(buffer, weights_only=False)):
        torch.testing.assert_close(twin(images)[:4], expected[:4], rtol=0, atol=0)
        assert spec_of(twin) == spec_of(tiny_detector)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_parameter_gets_a_gradient(tiny_detector: Detector, memory_format: torch.memory_format) -> None:
    detector = tiny_detector.to(memory_format=memory_format)
    predictions = detector(random_images().contiguous(memory_format=memory_format))
    (predictions.cls_logits.square().sum() + predictions.reg_logits.square().sum()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_memory_format_does_not_change_gradients(tiny_detector: Detector) -> None:
    """torch 2.15 corrupts the heap in the backward pass of a strided 1x1 convolution of channels_last images."""
    images = random_images(128, 128)
    twin = copy.deepcopy(tiny_detector).double().to(memory_format=torch.channels_last)
    for detector, x in ((tiny_detector.double(), images), (twin, images.contiguous(memory_format=torch.channels_last))):
        detector(x).cls_logits.square().sum().backward()
    stems = (tiny_detector.backbone.stem, twin.backbone.stem)
    torch.testing.assert_close(*(stem.branch_1x1.weight.grad.contiguous() for stem in stems))


def test_bf16_autocast_keeps_pixels_exact(tiny_detector: Detector) -> None:
    images = random_images(64, 544)
    expected = tiny_detector.eval()(images)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = tiny_detector(images)
    assert predictions.cls_logits.dtype == predictions.reg_logits.dtype == torch.bfloat16
    assert predictions.anchor_points.dtype == predictions.strides.dtype == torch.float32
    torch.testing.assert_close(predictions.anchor_points, expected.anchor_points, rtol=0, atol=0)
    torch.testing.assert_close(predictions.cls_logits.float(), expected.cls_logits, rtol=0.02, atol=0.02)


def test_bf16_autocast_trains(tiny_detector: Detector) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        predictions = tiny_detector(random_images())
    (predictions.cls_logits.float().square().sum() + predictions.reg_logits.float().square().sum()).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in tiny_detector.parameters())


def test_weights_in_bf16_leave_pixels_in_float32(tiny_detector: Detector) -> None:
    predictions = tiny_detector.bfloat16()(random_images())
    assert predictions.cls_logits.dtype == torch.bfloat16
    assert predictions.anchor_points.dtype == torch.float32
    assert tiny_detector.double()(random_images()).anchor_points.dtype == torch.float64


def test_new_head_scores_every_class_low(tiny_detector: Detector) -> None:
    for level in tiny_detector.head.levels:
        torch.testing.assert_close(level.cls_pred.bias.sigmoid(), torch.full((2,), 0.01))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 64, 64), r"images of shape \(3, 64, 64\) are no batch of images with 3 channels: pass \(B, 3, H, W\)"),
        ((1, 64, 64, 3), r"images of shape \(1, 64, 64, 3\) are no batch"),
        ((1, 3, 64, 80), "images of 64x80 pixels do not fit .* multiples of 32"),
        ((1, 3, 0, 64), "images of 0x64 pixels do not fit"),
    ],
)
def test_other_shapes_are_refused(tiny_detector: Detector, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tiny_detector(torch.zeros(shape))


def test_lists_of_wrong_length_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"have \[2, 1, 2, 2\] entries: give each one entry per stage"):
        YoloNASBackbone(4, [8, 8], [4], [1, 1], [False, False], 8)
    neck = partial(YoloNASNeck, hidden_channels=[4] * 4, num_blocks=[1] * 4)
    with pytest.raises(ConfigurationError, match="4 entries each instead of 3, 4 and 4"):
        neck([8] * 4, [4, 8, 16, 32], stage_channels=[8] * 3)
    with pytest.raises(ConfigurationError, match=r"hidden_channels=\[8\] does not fit 2 feature maps"):
        YoloNASHead([8, 8], [8, 16], 2, hidden_channels=[8])
    with pytest.raises(ConfigurationError, match="num_classes=0 leaves nothing to detect"):
        YoloNASHead([8], [8], 0, hidden_channels=[8])
