"""Stop when a metric no longer improves."""

from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

from detlit.errors import ConfigurationError

__all__ = ["DetectionEarlyStopping"]


class DetectionEarlyStopping(EarlyStopping):
    """Lightning's EarlyStopping with a detector's defaults, a minimum of epochs, and a refusal of unknown metrics.

    It looks after every validation, or after every epoch for metrics that training logs. Its state is in checkpoints.

    Args:
        monitor: the metric, as logged.
        mode: ``"max"`` where more is better.
        patience: checks in a row without improvement after which to stop: 3 stops at the third.
        min_delta: improvements up to this much are none.
        threshold: stop as soon as the metric is better than this; ``None`` for no such goal.
        min_epochs: epochs that are trained in any case; checks before do not count as without improvement.
        check_finite: stop as soon as the metric is NaN or infinite, even before ``min_epochs``.

    Raises:
        ConfigurationError: when the metric is first looked for, it is not among those logged.
    """

    def __init__(
        self,
        monitor: str = "val/map",
        mode: Literal["max", "min"] = "max",
        patience: int = 20,
        min_delta: float = 0.0,
        threshold: float | None = None,
        min_epochs: int = 0,
        check_finite: bool = True,
    ) -> None:
        if patience < 1:
            raise ConfigurationError(f"patience={patience} would stop a run that improves: set it to 1 or more.")
        super().__init__(
            monitor=monitor,
            mode=mode,
            patience=patience,
            min_delta=min_delta,
            stopping_threshold=threshold,
            check_finite=check_finite,
            check_on_train_epoch_end=not monitor.startswith("val"),
            verbose=True,
            log_rank_zero_only=True,
        )
        self.min_epochs = min_epochs
        self._epoch = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, and in the sanity check already refuse a metric that validation does not log."""
        if trainer.sanity_checking and trainer.callback_metrics and not self._check_on_train_epoch_end:
            self._validate_condition_metric(trainer.callback_metrics)
        super().on_validation_end(trainer, pl_module)

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        self._epoch = trainer.current_epoch
        super()._run_early_stopping_check(trainer)

    def _validate_condition_metric(self, logs: dict[str, Tensor]) -> bool:
        if self.monitor in logs:
            return True
        raise ConfigurationError(
            f"early stopping looks at {self.monitor}, which is not logged: choose one of {', '.join(sorted(logs))}."
        )

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        stop, reason = super()._evaluate_stopping_criteria(current)
        if self._epoch + 1 >= self.min_epochs or (self.check_finite and not current.isfinite()):
            return stop, reason
        self.wait_count = 0
        return False, None if stop else reason
