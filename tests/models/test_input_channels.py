import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detlit.errors import ConfigurationError
from detlit.models import Detector, presets
from detlit.models.input_channels import adapt_input_channels
from detlit.spec import build, spec_of
from detlit.structures import Preprocessing
from tests.tiny import tiny_detector


@pytest.fixture
def weight() -> Tensor:
    return torch.arange(1.0, 4.0).view(1, 3, 1, 1).repeat(2, 1, 1, 1)  # each filter is 1, 2, 3


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (1, [6.0]),
        (2, [4.0, 2.0]),
        (3, [1.0, 2.0, 3.0]),
        (4, [0.5, 2.0, 3.0, 0.5]),
        (6, [0.5, 1.0, 1.5, 0.5, 1.0, 1.5]),
    ],
)
def test_weights_of_each_channel(channels: int, expected: list[float], weight: Tensor) -> None:
    adapted = adapt_input_channels(weight, channels)
    assert adapted.shape == (2, channels, 1, 1)
    assert adapted[0].flatten().tolist() == adapted[1].flatten().tolist() == expected


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8])
def test_grey_and_repeated_channels_get_the_same_response(channels: int) -> None:
    torch.manual_seed(0)
    weight, grey, image = (
        torch.randn(5, 3, 3, 3).double(),
        torch.rand(1, 1, 8, 8).double(),
        torch.rand(1, 3, 8, 8).double(),
    )
    adapted = adapt_input_channels(weight, channels)
    torch.testing.assert_close(
        F.conv2d(grey.expand(-1, channels, -1, -1), adapted), F.conv2d(grey.expand(-1, 3, -1, -1), weight)
    )
    if channels >= 3:
        repeated = image[:, [index % 3 for index in range(channels)]]
        torch.testing.assert_close(F.conv2d(repeated, adapted), F.conv2d(image, weight))


def test_the_dtype_stays() -> None:
    assert adapt_input_channels(torch.ones(2, 3, 1, 1, dtype=torch.float16), 4).dtype == torch.float16


@pytest.mark.parametrize("name", ["yolo_nas_n", "ppyoloe_s"])
@pytest.mark.parametrize("channels", [1, 4])
def test_presets_take_images_with_other_numbers_of_channels(name: str, channels: int) -> None:
    with torch.device("meta"):
        detector: Detector = getattr(presets, name)(num_classes=2, in_channels=channels).eval()
        predictions = detector(torch.zeros(1, channels, 64, 64, dtype=torch.uint8))
        assert predictions.cls_logits.shape == (1, 84, 2)
        with pytest.raises(ConfigurationError, match=rf"with {channels} channels: pass \(B, {channels}, H, W\)"):
            detector(torch.zeros(1, 3, 64, 64))
        assert build(spec_of(detector)).backbone.in_channels == channels


def test_each_channel_is_normalized_and_the_order_stays() -> None:
    preprocessing = Preprocessing(channel_order="BGR", mean=(0.1, 0.2), std=(1.0, 0.5))
    detector = tiny_detector(in_channels=2)
    detector.set_preprocessing(preprocessing)
    image = torch.tensor([0.3, 0.7]).view(1, 2, 1, 1)
    torch.testing.assert_close(detector.normalization(image, torch.float32).flatten(), torch.tensor([0.2, 1.0]))


def test_mean_and_std_need_a_value_per_channel() -> None:
    with pytest.raises(ConfigurationError, match=r"mean=\[0.5, 0.5, 0.5\] for images of 1 channels: give one value"):
        tiny_detector(in_channels=1).set_preprocessing(Preprocessing(mean=(0.5, 0.5, 0.5)))
