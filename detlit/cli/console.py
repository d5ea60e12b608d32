"""What a run says on the terminal, and what it does not."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console

import detlit

__all__ = ["EpochProgress", "ModelSize", "plain_words"]

_ADVERTS = ("Tip:", "TPU available", "Loading `train_dataloader` to estimate")
"""What begins or is in notes of Lightning that tell a user of detlit nothing."""

_CHOSEN = (
    ".*does not have many workers.*",
    ".*sync_dist=True.*",  # every rank logs the values of all ranks already
    ".*monitor='val.*could not find the monitored key.*",  # not yet: MonitorGuard refuses wrong names
    ".*in eval mode at the start of training.*",  # what model.freeze names
    ".*is smaller than the logging interval.*",  # of small data: metrics.csv has the means of epochs, curves.png all
    ".*LeafSpec.*is deprecated.*",  # Lightning's use of torch
)
"""Warnings about what detlit does on purpose, or cannot change."""

_ONLY_TO_RESUME = ".*callbacks used to create the checkpoint need to be provided.*"
"""A warning about callbacks that have no part in scoring a checkpoint."""


class EpochProgress(RichProgressBar):
    """Lightning's bar, without a last epoch where the run has none."""

    def _get_train_description(self, current_epoch: int) -> str:
        description = super()._get_train_description(current_epoch)
        return description.replace("/-2", "   ")

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the logged values, without the number of the run folder."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the screen before the tables of the run are printed."""
        super().on_train_end(trainer, pl_module)
        self.teardown(trainer, pl_module, "fit")
        self.progress = None


class ModelSize(Callback):
    """Say in one line how many parameters there are, in place of Lightning's table, whose FLOPs are always 0."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print it."""
        if trainer.is_global_zero:
            sizes = [(parameter.numel(), parameter.requires_grad) for parameter in pl_module.parameters()]
            total, learning = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
            share = "all of them learn" if learning == total else f"{learning / 1e6:.2f} M of them learn"
            Console(highlight=False).print(f"{total / 1e6:.2f} M parameters, {share}")


@contextmanager
def plain_words(command: str) -> Iterator[None]:
    """Show warnings without lines of code, those of detlit as sentences; leave out adverts and what is on purpose.

    Args:
        command: ``"fit"``, ``"validate"`` or ``"test"``.
    """
    loggers = [logging.getLogger(f"lightning.{name}.utilities.rank_zero") for name in ("pytorch", "fabric")]
    format_before = warnings.formatwarning
    with warnings.catch_warnings():
        for message in _CHOSEN if command == "fit" else (*_CHOSEN, _ONLY_TO_RESUME):
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("ignore", module="jsonargparse")
        warnings.formatwarning = _sentence
        for logger in loggers:
            logger.addFilter(_no_advert)
        try:
            yield
        finally:
            warnings.formatwarning = format_before
            for logger in loggers:
                logger.removeFilter(_no_advert)


def _no_advert(record: logging.LogRecord) -> bool:
    return not any(advert in record.getMessage() for advert in _ADVERTS)


def _sentence(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if Path(filename).is_relative_to(Path(detlit.__file__).parent):
        return f"detlit: warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"
