"""Which checkpoints to keep: the best by a metric and the last."""

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from detlit.errors import ConfigurationError

__all__ = ["BestCheckpoint", "Checkpoint", "LastCheckpoint"]


class Checkpoint:
    """Keep ``best.ckpt`` by a metric and ``last.ckpt`` of the latest epoch.

    They are two callbacks, because Lightning's ``ModelCheckpoint(monitor=..., save_last=True)`` writes the last one
    only in epochs that improve the metric.

    Args:
        monitor: the metric that decides on the best, as logged.
        mode: ``"max"`` where more is better.
        dirpath: folder of both; ``None`` is ``checkpoints`` in the folder of the logs.
    """

    def __init__(
        self, monitor: str = "val/map", mode: Literal["max", "min"] = "max", dirpath: str | Path | None = None
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.dirpath = dirpath

    def callbacks(self) -> list[Callback]:
        """Return the two callbacks for ``Trainer(callbacks=...)``, the best first: the last records its state."""
        return [BestCheckpoint(self.monitor, self.mode, self.dirpath), LastCheckpoint(self.dirpath)]


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
    """

    def __init__(self, monitor: str, mode: Literal["max", "min"], dirpath: str | Path | None = None) -> None:
        super().__init__(dirpath=dirpath, filename="best", monitor=monitor, mode=mode, enable_version_counter=False)
        self._said = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the metric improved; without validation say once that there is no best."""
        if self.monitor in trainer.callback_metrics or _validates(trainer):
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
        super().on_validation_end(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if there is no best, because the run ended before its first validation."""
        if not self.best_model_path and not self._said and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"There is no best.ckpt, because {self.monitor} was never measured: validate more often "
                "(trainer.val_check_interval) or train longer."
            )


class LastCheckpoint(_Continued):
    """Write ``last.ckpt`` at the end of every epoch, after validation: what to resume from.

    Args:
        dirpath: see :class:`Checkpoint`.
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        super().__init__(dirpath=dirpath, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


def _validates(trainer: Trainer) -> bool:
    """Tell whether training validates; the loaders are known only from the first validation on."""
    return trainer.enable_validation and (trainer.val_dataloaders is None or any(trainer.num_val_batches))
