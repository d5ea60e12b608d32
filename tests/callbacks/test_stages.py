from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from detlit.callbacks import Checkpoint, FreezeBackbone, StageSwitch, StaticAssignerSwitch
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, quiet_trainer, weights


class Loss(nn.Module):
    use_static_assigner = False


class WithLoss(TinyModule):
    def __init__(self) -> None:
        super().__init__()
        self.loss = Loss()


class Epochs(StageSwitch):
    def __init__(self) -> None:
        self.called: list[int] = []

    def switch(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        self.called.append(epoch)


class Watch(Callback):
    """Keeps what every step and every validation sees."""

    def __init__(self, look: Any) -> None:
        self.look, self.seen = look, []  # type: ignore[var-annotated]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.seen.append(self.look(pl_module))


def test_the_base_switches_before_each_epoch_and_where_training_starts(tmp_path: Path) -> None:
    epochs = Epochs()
    quiet_trainer(tmp_path, callbacks=[epochs], max_epochs=2, enable_checkpointing=False).fit(TinyModule())
    assert epochs.called == [0, 0, 1]


def test_the_base_switches_where_an_epoch_is_resumed(tmp_path: Path) -> None:
    class Crash(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 13:
                raise RuntimeError

    savers = Checkpoint(dirpath=tmp_path, every_n_steps=4).callbacks()
    with pytest.raises(RuntimeError):
        quiet_trainer(tmp_path, callbacks=[Crash(), *savers], max_epochs=2).fit(TinyModule())
    epochs = Epochs()
    trainer = quiet_trainer(tmp_path, callbacks=[epochs, *Checkpoint(dirpath=tmp_path).callbacks()], max_epochs=2)
    trainer.fit(TinyModule(), ckpt_path=tmp_path / "last.ckpt")
    assert epochs.called == [1]


@pytest.mark.parametrize(("num_epochs", "static"), [(1, [True, False, False]), (2, [True, True, False])])
def test_the_static_assigner_comes_first(tmp_path: Path, num_epochs: int, static: list[bool]) -> None:
    watch = Watch(lambda module: module.loss.use_static_assigner)
    callbacks = [StaticAssignerSwitch(num_epochs), watch]
    quiet_trainer(tmp_path, callbacks=callbacks, max_epochs=3, enable_checkpointing=False).fit(WithLoss())
    assert watch.seen[::8] == static


def test_a_run_resumed_after_the_switch_stays_switched(tmp_path: Path) -> None:
    savers = Checkpoint(dirpath=tmp_path).callbacks
    quiet_trainer(tmp_path, callbacks=[StaticAssignerSwitch(1), *savers()], max_epochs=2).fit(WithLoss())
    watch = Watch(lambda module: module.loss.use_static_assigner)
    trainer = quiet_trainer(tmp_path, callbacks=[StaticAssignerSwitch(1), watch, *savers()], max_epochs=3)
    trainer.fit(WithLoss(), ckpt_path=tmp_path / "last.ckpt")
    assert watch.seen == [False] * 8


class Backboned(TinyModule):
    """The linear layer and the batch norm are the backbone; momentum and weight decay would move what is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = self.network[:2], self.network[2:]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9, weight_decay=0.1)


class ByEpoch(Callback):
    """Saves the weights that each epoch starts with, of rank 0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(weights(pl_module.backbone), self.folder / f"{trainer.current_epoch}_{trainer.global_rank}.pt")


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.distributed)])
def test_the_backbone_stands_still_until_its_epoch(tmp_path: Path, devices: int) -> None:
    module = Backboned()
    before = weights(module.backbone)
    strategy = "auto" if devices == 1 else "ddp_fork"
    callbacks = [FreezeBackbone(2, part="backbone"), ByEpoch(tmp_path)]
    quiet_trainer(
        tmp_path, callbacks=callbacks, max_epochs=3, devices=devices, strategy=strategy, enable_checkpointing=False
    ).fit(module)
    for rank in range(devices):
        first, second, third = (torch.load(tmp_path / f"{epoch}_{rank}.pt") for epoch in range(3))
        assert all(torch.equal(first[name], before[name]) for name in before)
        assert all(torch.equal(second[name], before[name]) for name in before)
        assert not any(torch.equal(third[name], before[name]) for name in before)


def test_a_single_process_computes_no_gradients_for_it_and_the_optimizer_keeps_it(tmp_path: Path) -> None:
    module = Backboned()
    module.head[1].bias.requires_grad_(False)
    watch = Watch(lambda module: [value.requires_grad for value in module.parameters()])
    trainer = quiet_trainer(
        tmp_path, callbacks=[FreezeBackbone(1, part="backbone"), watch], max_epochs=2, enable_checkpointing=False
    )
    trainer.fit(module)
    assert watch.seen[0] == [False, False, False, False, True, False]
    assert watch.seen[8] == [True, True, True, True, True, False]
    assert len(trainer.optimizers[0].param_groups[0]["params"]) == 6


def test_what_was_in_evaluation_mode_anyway_stays_so(tmp_path: Path) -> None:
    module = Backboned()
    module.backbone[1].eval()
    watch = Watch(lambda module: [part.training for part in module.backbone])
    callbacks = [FreezeBackbone(1, part="backbone"), watch]
    quiet_trainer(tmp_path, callbacks=callbacks, max_epochs=2, enable_checkpointing=False).fit(module)
    assert watch.seen[0] == [False, False]
    assert watch.seen[8] == [True, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StaticAssignerSwitch(0), "num_epochs=0 would change nothing"),
        (lambda: FreezeBackbone(0), "unfreeze_at_epoch=0 would change nothing"),
    ],
)
def test_switches_without_effect_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        (StaticAssignerSwitch(1), "which TinyModule does not have"),
        (FreezeBackbone(1), "'detector.backbone' is no part of TinyModule: its parts are network"),
    ],
)
def test_a_module_without_the_part_is_refused(tmp_path: Path, switch: Callback, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        quiet_trainer(tmp_path, callbacks=[switch], enable_checkpointing=False).fit(TinyModule())
