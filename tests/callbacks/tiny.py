"""A module small enough to follow by hand, and Trainers that leave no traces."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class TinyModule(LightningModule):
    """Linear layers around a batch norm; keeps the weights that each validation and test saw."""

    def __init__(self, scores: list[float] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        self.scores = scores
        self.seen: list[Tensor] = []
        self.on_step: Callable[[], None] = lambda: None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, outputs = batch
        loss = (self.network(inputs) - outputs).square().mean()
        self.log("train/loss", loss.detach())
        return loss

    def on_train_batch_end(self, *args: Any) -> None:
        self.on_step()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if batch_idx == 0:
            self.seen.append(self.network[0].weight.detach().clone())
        score = self.network[0].weight.mean() if self.scores is None else self.scores[self.current_epoch]
        self.log("val/map", float(score))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.seen.append(self.network[0].weight.detach().clone())
        self.log("test/map", 0.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)

    def _loader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(16, 4, generator=generator)
        return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = _loader


def quiet_trainer(folder: Path, **arguments: Any) -> Trainer:
    """Return a CPU Trainer that neither logs nor draws, and whose checkpoints go to ``folder``."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": folder,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 1,
    }
    return Trainer(**{**defaults, **arguments})


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's state."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Check that two states are equal to the bit."""
    assert actual.keys() == expected.keys()
    different = [name for name, value in actual.items() if not torch.equal(value, expected[name])]
    assert not different
