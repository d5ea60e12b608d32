"""A misspelt monitor is refused early, in one sentence, whoever watches it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from detlit.callbacks import Checkpoint, MonitorGuard, default_callbacks
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, quiet_trainer


class Plateau(TinyModule):
    """Lowers its learning rate by a metric."""

    def __init__(self, monitor: str) -> None:
        super().__init__([0.1] * 3)
        self.monitor = monitor

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.monitor}}


def steps_until_refused(folder: Path, message: str, *callbacks: Any, module: Any = None, sanity: int = 1) -> int:
    trainer = quiet_trainer(folder, callbacks=[MonitorGuard(), *callbacks], num_sanity_val_steps=sanity, max_epochs=2)
    with pytest.raises(ConfigurationError, match=message):
        trainer.fit(module or TinyModule([0.1] * 3))
    return int(trainer.global_step)


@pytest.mark.parametrize(
    ("watcher", "name"),
    [
        (lambda: EarlyStopping("val/mAP"), "EarlyStopping"),
        (lambda: ModelCheckpoint(monitor="val/mAP"), "ModelCheckpoint"),
        (lambda: Checkpoint(monitor="val/mAP").callbacks()[0], "checkpoint"),
    ],
    ids=["early stopping", "ModelCheckpoint", "ours"],
)
@pytest.mark.parametrize(("sanity", "steps"), [(1, 0), (0, 8)])
def test_a_misspelt_monitor_is_known_after_the_first_validation(
    watcher: Any, name: str, sanity: int, steps: int, tmp_path: Path
) -> None:
    message = rf"^{name}\.monitor=val/mAP is not logged: did you mean val/map\? Otherwise choose one of .*val/map"
    assert steps_until_refused(tmp_path, message, watcher(), sanity=sanity) == steps


def test_schedulers_are_looked_at_too(tmp_path: Path) -> None:
    message = "ReduceLROnPlateau.monitor=val/lozz is not logged"
    assert steps_until_refused(tmp_path, message, module=Plateau("val/lozz")) == 0


def test_a_forgotten_prefix_is_guessed(tmp_path: Path) -> None:
    assert steps_until_refused(tmp_path, "did you mean val/map", EarlyStopping("mAP")) == 8  # training might log it


def test_what_training_logs_at_the_end_of_an_epoch_can_be_watched(tmp_path: Path) -> None:
    class LogsLate(TinyModule):
        def on_train_epoch_end(self) -> None:
            self.log("late", 0.5)

    stopping = EarlyStopping("late", check_on_train_epoch_end=True)
    quiet_trainer(tmp_path, callbacks=[MonitorGuard(), stopping]).fit(LogsLate([0.1]))
    assert stopping.best_score == 0.5


@pytest.mark.parametrize("monitor", ["val/map", "train/loss"])
def test_what_is_logged_can_be_watched(monitor: str, tmp_path: Path) -> None:
    callbacks = [MonitorGuard(), EarlyStopping(monitor, check_on_train_epoch_end=True)]
    trainer = quiet_trainer(tmp_path, callbacks=callbacks, num_sanity_val_steps=1)
    trainer.fit(Plateau("val/map"))
    assert trainer.global_step == 8


def test_evaluation_watches_nothing(tmp_path: Path) -> None:
    quiet_trainer(tmp_path, callbacks=[MonitorGuard(), EarlyStopping("val/mAP")]).validate(TinyModule([0.1]))


def test_it_is_the_first_of_the_default_callbacks() -> None:
    assert isinstance(default_callbacks()[0], MonitorGuard)
