from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from detlit.losses import PPYoloELoss
from detlit.models import Detector, presets
from detlit.spec import build, spec_of
from detlit.structures import Preprocessing, Target

CONFIGS = Path(__file__).parents[2] / "configs" / "model"
PARAMETERS = {
    "ppyoloe_s": 8_084_588,
    "ppyoloe_m": 24_134_892,
    "ppyoloe_l": 54_078_556,
    "ppyoloe_x": 102_331_484,
    "yolo_nas_n": 5_842_239,
    "yolo_nas_s": 12_878_304,
    "yolo_nas_m": 33_861_346,
    "yolo_nas_l": 44_529_448,
}


def shapes_of(detector: Detector) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in detector.state_dict().items()}


@pytest.fixture(params=PARAMETERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(name: str, **arguments: Any) -> Detector:
    """A preset without memory for its weights."""
    with torch.device("meta"):
        detector: Detector = getattr(presets, name)(**arguments)
    return detector


def test_number_of_parameters(name: str) -> None:
    detector = make(name)
    assert sum(parameter.numel() for parameter in detector.parameters()) == PARAMETERS[name]
    for text in ((CONFIGS / f"{name}.yaml").read_text(), getattr(presets, name).__doc__):
        assert f"{PARAMETERS[name]:,} parameters at 80 classes" in text.splitlines()[0]


def test_config_builds_the_preset(name: str) -> None:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    for factory in ("neck", "head"):
        config["init_args"][factory]["partial"] = True
    with torch.device("meta"):
        detector = build(config)
    assert spec_of(detector) == spec_of(make(name))
    assert shapes_of(detector) == shapes_of(make(name))


def test_config_on_the_command_line(name: str) -> None:
    parser = ArgumentParser()
    parser.add_argument("--detector", type=Detector, sub_configs=True)
    path = CONFIGS / f"{name}.yaml"
    config = parser.parse_args([f"--detector={path}", "--detector.num_classes=3", "--detector.head.reg_max=8"])
    with torch.device("meta"):
        detector = parser.instantiate(config).detector
        again = build(spec_of(detector))
    assert detector.head.reg_max == 8
    assert shapes_of(detector) == shapes_of(again)
    ours = {key: shape for key, shape in shapes_of(detector).items() if "_pred" not in key}
    assert ours == {key: shape for key, shape in shapes_of(make(name)).items() if "_pred" not in key}


def test_arguments_reach_the_detector(name: str) -> None:
    preprocessing = Preprocessing(channel_order="BGR")
    detector = make(name, num_classes=3, preprocessing=preprocessing)
    assert detector.num_classes == 3
    assert detector.preprocessing == preprocessing
    with torch.device("meta"):
        again = build(spec_of(detector))
    assert shapes_of(again) == shapes_of(detector)
    assert again.preprocessing == preprocessing


def test_weights_survive_a_round_trip() -> None:
    images = torch.rand(1, 3, 64, 64)
    ours, twin = presets.yolo_nas_n(4).eval(), presets.yolo_nas_n(4).eval()
    twin.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(images)[:4], twin(images)[:4], rtol=0, atol=0)


LARGE = ("ppyoloe_l", "ppyoloe_x", "yolo_nas_l")


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.slow] * (x in LARGE)) for x in PARAMETERS])
def test_one_step_of_training(name: str) -> None:
    torch.manual_seed(0)
    detector: Detector = getattr(presets, name)(num_classes=2).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    targets = [Target(boxes=torch.tensor([[8.0, 8.0, 40.0, 48.0]]), labels=torch.tensor([i])) for i in range(2)]
    loss = PPYoloELoss()
    loss(detector(images), targets).total.backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in detector.parameters())
    optimizer.step()
    assert loss(detector(images), targets).total.isfinite()
    with torch.no_grad():
        predictions = detector.eval()(images)
    assert predictions.cls_logits.shape == (2, 84, 2)
    assert predictions.cls_logits.isfinite().all()
    assert predictions.reg_logits.isfinite().all()
