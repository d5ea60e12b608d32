"""Callbacks of detlit on modules that detlit did not write, and parts of others in detlit's module."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import detlit
from detlit.callbacks import Checkpoint, FreezeBackbone, NonFiniteGuard, TrainingStopped
from detlit.checkpoint_io import AtomicCheckpointIO
from detlit.losses import DetectionLoss
from detlit.postprocess import PostPredictionCallback
from detlit.structures import Detection, LossOutput, RawPredictions, Target
from tests.resume import differences
from tests.tiny import tiny_detector


def plain_trainer(folder: Path, *callbacks: Callback, monitor: str, **arguments: Any) -> Trainer:
    """Return Lightning's own Trainer with what the README tells scripts to give it."""
    checkpoint = Checkpoint(monitor, dirpath=folder, every_n_steps=3)
    return Trainer(
        callbacks=[*detlit.default_callbacks(ema=detlit.EMA(0.9), checkpoint=checkpoint), *callbacks],
        plugins=[AtomicCheckpointIO()],
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, **arguments},
    )


class Images(Dataset[tuple[Tensor, int]]):
    """Sixteen images of two kinds: dark and bright."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.rand(3, 32, 32)  # from the global generator, as many transforms draw
        return 0.2 * noise + 0.7 * (index % 2), index % 2


class Classifier(LightningModule):
    """A torchvision classifier, with dropout, fed by a plain shuffling DataLoader."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = torchvision.models.mobilenet_v3_small(num_classes=2)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Images(), batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Images(), batch_size=4)


class Detectors(LightningModule):
    """A detector of torchvision, trained as its documentation says."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses: dict[str, Tensor] = self.network(list(batch[0]), list(batch[1]))
        return torch.stack(list(losses.values())).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/score", self.network(list(batch[0]))[0]["scores"].sum(), batch_size=2)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-4)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Boxes(), batch_size=2, collate_fn=lambda samples: tuple(zip(*samples, strict=True)))

    val_dataloader = train_dataloader


class Boxes(Dataset[tuple[Tensor, Target]]):
    """Four float images with one box each, in the layout of torchvision."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        generator = torch.Generator().manual_seed(index)
        boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0]])
        return torch.rand(3, 64, 64, generator=generator), Target(boxes=boxes, labels=torch.tensor([1 + index % 2]))


class TermAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.step = -1
            os.kill(os.getpid(), signal.SIGTERM)


def last(folder: Path) -> dict[str, Any]:
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    names = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "random_state", "global_step")
    return {name: checkpoint[name] for name in names}


def test_a_classifier_has_every_guarantee_of_the_command_line(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    plain_trainer(whole, monitor="val/accuracy").fit(Classifier())
    assert {path.name for path in whole.iterdir()} == {"best.ckpt", "last.ckpt"}
    first = plain_trainer(half, TermAt(3), monitor="val/accuracy")
    with pytest.raises(TrainingStopped) as stopped:
        first.fit(Classifier())
    assert stopped.value.code == 143
    assert last(half)["global_step"] == 4


def test_a_classifier_resumes_exactly_between_epochs(tmp_path: Path) -> None:
    class Crash(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                raise RuntimeError

    torch.manual_seed(1)
    plain_trainer(tmp_path / "whole", monitor="val/accuracy").fit(Classifier())
    torch.manual_seed(1)
    with pytest.raises(RuntimeError):
        plain_trainer(tmp_path / "half", Crash(), monitor="val/accuracy").fit(Classifier())
    torch.manual_seed(2)
    resumed = plain_trainer(tmp_path / "half", monitor="val/accuracy")
    resumed.fit(Classifier(), ckpt_path=tmp_path / "half" / "last.ckpt")
    assert differences(last(tmp_path / "half"), last(tmp_path / "whole")) == []


def test_a_detector_of_torchvision_trains_with_them(tmp_path: Path) -> None:
    freeze, guard, module = FreezeBackbone(1, part="network.backbone"), NonFiniteGuard(), Detectors()
    before = {name: value.clone() for name, value in module.network.backbone.state_dict().items()}
    trainer = plain_trainer(tmp_path, freeze, guard, monitor="val/score", max_epochs=1)
    trainer.fit(module)
    trained = last(tmp_path)["current_model_state"]
    assert differences(before, {name: trained[f"network.backbone.{name}"] for name in before}) == []
    assert guard.looks > 0
    assert (tmp_path / "best.ckpt").exists()


class SumLoss(DetectionLoss):
    """Someone else's loss: pull every logit down."""

    def forward(self, predictions: RawPredictions, batch: Any) -> LossOutput:
        loss = predictions.cls_logits.square().mean() + predictions.reg_logits.square().mean()
        return LossOutput(loss, {"loss_mine": loss.detach()})


class BestBox(PostPredictionCallback):
    """Someone else's post-prediction callback: one box per image."""

    def forward(self, predictions: RawPredictions) -> list[Detection]:
        best = predictions.cls_logits.sigmoid().flatten(1).max(1).values
        box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
        return [Detection(boxes=box, scores=score[None], labels=torch.zeros(1, dtype=torch.int64)) for score in best]


class Data(LightningDataModule):
    """Someone else's data module."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Boxes(), batch_size=2, collate_fn=lambda samples: tuple(zip(*samples, strict=True)))

    val_dataloader = train_dataloader


def test_the_module_takes_a_foreign_loss_callback_and_data(tmp_path: Path) -> None:
    module = detlit.DetectionModule(
        tiny_detector(3),
        loss=SumLoss(),
        post_prediction_callback=BestBox(),
        optimizer=partial(torch.optim.SGD, lr=0.01),
    )
    trainer = plain_trainer(tmp_path, monitor="val/map", max_epochs=1)
    trainer.fit(module, datamodule=Data())
    assert {"train/loss_mine", "val/map"} <= set(trainer.callback_metrics)
    (detection,) = module.eval()(torch.rand(1, 3, 64, 64))
    assert detection["boxes"].tolist() == [[0.0, 0.0, 8.0, 8.0]]
