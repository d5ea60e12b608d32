"""The callbacks of training in a plain Trainer, on a module that knows nothing of detlit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from detlit import EMA, BestWeightsAverage, LargestBatchSize, LRWarmup, PreciseBatchNorm, StepTimer
from detlit.callbacks import Checkpoint
from tests.callbacks.tiny import assert_same, quiet_trainer
from tests.test_plug_in import Classifier


class ImageClassifier(LightningModule):
    """Bright or dark, by two convolutions; logs an accuracy without a slash."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images).flatten(1)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)]

    def train_dataloader(self) -> DataLoader:
        images = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        labels = torch.arange(32) % 2
        return DataLoader(TensorDataset(images + labels.view(-1, 1, 1, 1), labels), batch_size=8)

    val_dataloader = train_dataloader


def train(folder: Path, epochs: int, ckpt_path: Path | None = None) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the metrics and the last checkpoint of a run that is four epochs long."""
    callbacks = [
        EMA(0.8, "constant", start_step=2, update_period=2, validate="both"),
        LRWarmup(6, momentum=0.5, reference_batch_size=16),
        BestWeightsAverage("accuracy", k=1),
        *Checkpoint("accuracy", dirpath=folder).callbacks(),
    ]
    trainer = quiet_trainer(folder, callbacks=callbacks, max_epochs=4)
    module = ImageClassifier()
    if epochs < 4:
        module.on_train_epoch_start = lambda: _stop_at(module, epochs)  # type: ignore[method-assign]
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            trainer.fit(module)
    else:
        trainer.fit(module, ckpt_path=ckpt_path)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return metrics, torch.load(folder / "last.ckpt", weights_only=True)


def _stop_at(module: LightningModule, epoch: int) -> None:
    if module.current_epoch == epoch:
        raise KeyboardInterrupt


def test_a_classifier_trains_with_all_of_them_and_resumes_exactly_within_the_warmup(tmp_path: Path) -> None:
    metrics, straight = train(tmp_path / "straight", 4)
    assert metrics["accuracy_raw"] > 0.8
    assert metrics["accuracy_average"] >= metrics["accuracy"] > 0.8  # the average of the one best
    assert (tmp_path / "straight" / "average.ckpt").exists()
    _, half = train(tmp_path / "half", 1)
    assert half["global_step"] == 4
    _, resumed = train(tmp_path / "rest", 4, tmp_path / "half" / "last.ckpt")
    for name in ("state_dict", "current_model_state"):
        assert_same(resumed[name], straight[name])


class Adaptable(Classifier):
    """A classifier of torchvision on a device on which three images fit."""

    batch_size = 1

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(super().train_dataloader().dataset, batch_size=self.batch_size, shuffle=True)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        if len(batch[0]) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return super().training_step(batch, batch_idx)


class LargestImages(LargestBatchSize):
    """Makes batches of images and labels."""

    def batch(self, batch_size: int, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.ones(batch_size, 3, 32, 32), torch.zeros(batch_size, dtype=torch.int64)


def test_a_classifier_of_torchvision_finds_its_batch_size_measures_statistics_and_time(tmp_path: Path) -> None:
    module = Adaptable()
    callbacks = [LargestImages(margin=0.0, most=8), PreciseBatchNorm(6), StepTimer(every_n_steps=2)]
    trainer = quiet_trainer(tmp_path, callbacks=callbacks, limit_train_batches=4)
    trainer.fit(module)
    assert module.batch_size == 3
    assert trainer.global_step == 4
    layer = next(part for part in module.modules() if isinstance(part, nn.BatchNorm2d))
    assert layer.num_batches_tracked == 4
    assert {"time/transfer", "time/forward", "time/step", "time/images_per_second"} <= set(trainer.callback_metrics)
