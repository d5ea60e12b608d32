"""Metrics that are watched under a name that nobody logs."""

import difflib
from collections.abc import Iterator

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from detlit.callbacks.checkpoints import BestCheckpoint
from detlit.errors import ConfigurationError

__all__ = ["MonitorGuard"]


class MonitorGuard(Callback):
    """Refuse to watch a metric that is not logged, whoever does: checkpoints, early stopping, the learning rate.

    Names that begin with ``val`` are looked up in the sanity check, or after the first validation where there is none.
    Of others, which training may log later, those are refused that only lack this prefix: ``mAP`` where ``val/map`` is
    logged. It comes first among the callbacks, so that its words are read.
    """

    def __init__(self) -> None:
        self._done = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, once."""
        if trainer.state.fn != TrainerFn.FITTING or self._done or not trainer.callback_metrics:
            return
        self._done = not trainer.sanity_checking
        for watcher, name in _monitored(trainer):
            lacks_prefix = self._done and f"val/{name}".lower() in map(str.lower, trainer.callback_metrics)
            if name not in trainer.callback_metrics and (name.startswith("val") or lacks_prefix):
                raise ConfigurationError(_message(watcher, name, sorted(trainer.callback_metrics)))


def _monitored(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """Yield who watches a metric, and its name; checkpoints first, since curves follow them."""
    for callback in sorted(trainer.callbacks, key=lambda each: not isinstance(each, BestCheckpoint)):  # type: ignore[attr-defined]
        name = getattr(callback, "monitor", None)
        if isinstance(name, str):
            yield "checkpoint" if isinstance(callback, BestCheckpoint) else type(callback).__name__, name
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.monitor is not None:
            yield type(config.scheduler).__name__, config.monitor


def _message(watcher: str, name: str, logged: list[str]) -> str:
    by_lower = {key.lower(): key for key in logged}
    candidates = difflib.get_close_matches(name.lower(), list(by_lower), 1)
    candidates += difflib.get_close_matches(f"val/{name.lower()}", list(by_lower), 1)
    guess = f"did you mean {by_lower[candidates[0]]}? Otherwise " if candidates else ""
    return f"{watcher}.monitor={name} is not logged: {guess}choose one of {', '.join(logged)}."
