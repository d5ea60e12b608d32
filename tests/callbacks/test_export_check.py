"""The callback that exports before it is too late."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detlit.callbacks.export_check import ExportCheck
from detlit.errors import ConfigurationError, ExportError
from detlit.models import Detector
from detlit.structures import Preprocessing
from tests.tiny import tiny_detector

if not hasattr(torch.onnx, "ops"):
    pytest.skip("export needs torch 2.8", allow_module_level=True)

pytest.importorskip("onnxruntime")


class Module(LightningModule):
    """Any module that has a detector."""

    def __init__(self, detector: Detector | None) -> None:
        super().__init__()
        if detector is not None:
            self.detector = detector
        self.weight = nn.Parameter(torch.zeros(1))
        self.steps = 0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.steps += 1
        return self.weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Module, check: ExportCheck) -> None:
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[check],
    )
    trainer.fit(module, DataLoader(torch.zeros(2, 1)))  # type: ignore[arg-type]


def small_detector() -> Detector:
    torch.manual_seed(0)
    detector = tiny_detector()
    detector.set_preprocessing(Preprocessing(size=(64, 64)))
    return detector


def test_a_good_detector_trains_unchanged() -> None:
    module = Module(small_detector())
    before = {name: value.clone() for name, value in module.detector.state_dict().items()}
    state = torch.get_rng_state()
    check = ExportCheck(dynamic=("batch",))
    check.on_fit_start(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), module)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.detector.training
    assert all(torch.equal(value, before[name]) for name, value in module.detector.state_dict().items())


class Strange(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(x)


def test_a_detector_that_cannot_be_exported_never_starts() -> None:
    module = Module(small_detector())
    module.detector.backbone = nn.Sequential(Strange(), module.detector.backbone)  # type: ignore[assignment]
    module.detector.backbone.in_channels = 3  # type: ignore[assignment]
    with pytest.raises(ExportError, match="the detector cannot be exported to ONNX"):
        fit(module, ExportCheck(dynamic=()))
    assert module.steps == 0


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"max_box": -1.0}, {"max_score": -1.0}], ids=["boxes", "scores"])
def test_a_difference_is_an_error(limits: dict[str, float]) -> None:
    with pytest.raises(ExportError, match="the exported detector differs from torch by"):
        fit(Module(small_detector()), ExportCheck(dynamic=(), **limits))


@pytest.mark.slow
def test_the_suppression_is_checked_too() -> None:
    module = Module(small_detector())
    fit(module, ExportCheck(nms="batch"))
    assert module.steps == 1


def test_a_module_without_a_detector_is_told() -> None:
    with pytest.raises(ConfigurationError, match="Module has no detector to export"):
        fit(Module(None), ExportCheck())
