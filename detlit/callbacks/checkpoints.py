"""Which checkpoints to keep: the best by a metric, the last, and those of the last epochs."""

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from detlit.errors import ConfigurationError

__all__ = ["BestCheckpoint", "Checkpoint", "EpochCheckpoints", "LastCheckpoint", "first_of_last_epochs"]


class Checkpoint:
    """Keep ``best.ckpt`` by a metric and ``last.ckpt`` of the latest epoch.

    They are several callbacks, because Lightning's ``ModelCheckpoint(monitor=..., save_last=True)`` writes the last one
    only in epochs that improve the metric.

    Args:
        monitor: the metric that decides on the best, as logged.
        mode: ``"max"`` where more is better.
        dirpath: folder of all of them; ``None`` is ``checkpoints`` in the folder of the logs.
        every_n_steps: also write ``last.ckpt`` after every so many optimizer steps, for long epochs; a run resumed from
            it goes on with the next batch of the epoch.
        best_in_last_n_epochs: let only the last so many epochs compete for the best, such as those that
            :class:`~detlit.callbacks.CloseMosaic` trains without mosaic; ``None`` for all.
        save_last_n_epochs: also keep ``epoch_N.ckpt`` of each of the last so many epochs, for averaging them later.
    """

    def __init__(
        self,
        monitor: str = "val/map",
        mode: Literal["max", "min"] = "max",
        dirpath: str | Path | None = None,
        every_n_steps: int | None = None,
        best_in_last_n_epochs: int | None = None,
        save_last_n_epochs: int = 0,
    ) -> None:
        for name, value, least in (
            ("every_n_steps", every_n_steps, 1),
            ("best_in_last_n_epochs", best_in_last_n_epochs, 1),
            ("save_last_n_epochs", save_last_n_epochs, 0),
        ):
            if value is not None and value < least:
                raise ConfigurationError(f"checkpoint.{name}={value} is too small: set it to {least} or more.")
        self.monitor = monitor
        self.mode = mode
        self.dirpath = dirpath
        self.every_n_steps = every_n_steps
        self.best_in_last_n_epochs = best_in_last_n_epochs
        self.save_last_n_epochs = save_last_n_epochs

    def callbacks(self) -> list[Callback]:
        """Return the callbacks for ``Trainer(callbacks=...)``, the last one last: it records the others' state."""
        epochs = [EpochCheckpoints(self.save_last_n_epochs, self.dirpath)] if self.save_last_n_epochs else []
        best = BestCheckpoint(self.monitor, self.mode, self.dirpath, self.best_in_last_n_epochs)
        return [best, *epochs, LastCheckpoint(self.dirpath, self.every_n_steps)]


def first_of_last_epochs(num_epochs: int, trainer: Trainer, option: str) -> int:
    """Return the first of the last ``num_epochs`` epochs of a run, counted from 0.

    Raises:
        ConfigurationError: the run is limited by steps or not at all, so that its last epochs are unknown.
    """
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        raise ConfigurationError(
            f"{option}={num_epochs} counts from the end, and the number of epochs is open: set trainer.max_epochs."
        )
    return trainer.max_epochs - num_epochs


class _Continued(ModelCheckpoint):
    """A ModelCheckpoint that goes on with its score when a run is resumed into another folder."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the state of the resumed run if its file still exists, otherwise start anew."""
        state = checkpoint["callbacks"].get(self.state_key)
        if state is None:
            return
        if state["best_model_path"] and self.file_exists(state["best_model_path"], trainer):
            state["dirpath"] = self.dirpath
        else:
            del checkpoint["callbacks"][self.state_key]


class BestCheckpoint(_Continued):
    """Write ``best.ckpt`` whenever validation improves the monitored metric.

    Args:
        monitor: the metric, as logged.
        mode: ``"max"`` where more is better.
        dirpath: see :class:`Checkpoint`.
        in_last_n_epochs: see :class:`Checkpoint`.
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["max", "min"],
        dirpath: str | Path | None = None,
        in_last_n_epochs: int | None = None,
    ) -> None:
        super().__init__(dirpath=dirpath, filename="best", monitor=monitor, mode=mode, enable_version_counter=False)
        self.in_last_n_epochs = in_last_n_epochs
        self._said = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, and refuse to count epochs from an end that is open."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._competes(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the metric improved; without validation say once that there is no best."""
        if self.monitor in trainer.callback_metrics or _validates(trainer):
            if self._competes(trainer):
                super().on_train_epoch_end(trainer, pl_module)
        elif not self._said:
            rank_zero_warn(f"Nothing logs {self.monitor}, as there is no validation: only last.ckpt is written.")
            self._said = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the metric improved; refuse a misspelt one in the sanity check, before an epoch is spent."""
        logged, monitor = trainer.callback_metrics, str(self.monitor)
        if trainer.sanity_checking and logged and monitor.startswith("val") and monitor not in logged:
            raise ConfigurationError(
                f"checkpoint.monitor={monitor} is not logged: choose one of {', '.join(sorted(logged))}."
            )
        if self._competes(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if there is no best, because the run ended before its first validation."""
        if not self.best_model_path and not self._said and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"There is no best.ckpt, because {self.monitor} was never measured: validate more often "
                "(trainer.val_check_interval) or train longer."
            )

    def _competes(self, trainer: Trainer) -> bool:
        if self.in_last_n_epochs is None:
            return True
        first = first_of_last_epochs(self.in_last_n_epochs, trainer, "checkpoint.best_in_last_n_epochs")
        return trainer.current_epoch >= first


class EpochCheckpoints(_Continued):
    """Keep ``epoch_N.ckpt`` of each of the last epochs, N counted from 0.

    Args:
        num_epochs: how many.
        dirpath: see :class:`Checkpoint`.
    """

    def __init__(self, num_epochs: int, dirpath: str | Path | None = None) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="epoch_{epoch}",
            auto_insert_metric_name=False,
            save_top_k=-1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.num_epochs = num_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, and refuse to count epochs from an end that is open."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._first(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if it is one of the last epochs."""
        if trainer.current_epoch >= self._first(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def _first(self, trainer: Trainer) -> int:
        return first_of_last_epochs(self.num_epochs, trainer, "checkpoint.save_last_n_epochs")


class LastCheckpoint(_Continued):
    """Write ``last.ckpt`` at the end of every epoch, after validation, and between if asked: what to resume from.

    Args:
        dirpath: see :class:`Checkpoint`.
        every_n_steps: see :class:`Checkpoint`.
    """

    def __init__(self, dirpath: str | Path | None = None, every_n_steps: int | None = None) -> None:
        super().__init__(dirpath=dirpath, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch; after its last batch validation comes first, as the checkpoint holds the best score."""
        if (
            self.every_n_steps is not None
            and trainer.global_step % self.every_n_steps == 0
            and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            and not self._should_skip_saving_checkpoint(trainer)
        ):
            self.save_now(trainer)

    def save_now(self, trainer: Trainer) -> str:
        """Write ``last.ckpt`` and return its path; a collective call."""
        self._save_none_monitor_checkpoint(trainer, {})
        return self.best_model_path

    def is_up_to_date(self, trainer: Trainer) -> bool:
        """Tell whether ``last.ckpt`` holds the present step."""
        return self._last_global_step_saved == trainer.global_step


def _validates(trainer: Trainer) -> bool:
    """Tell whether training validates; the loaders are known only from the first validation on."""
    return trainer.enable_validation and (trainer.val_dataloaders is None or any(trainer.num_val_batches))
