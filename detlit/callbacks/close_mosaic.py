"""The last epochs without mosaic."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader

from detlit.errors import ConfigurationError

__all__ = ["CloseMosaic"]


class CloseMosaic(Callback):
    """Train the last ``num_epochs`` epochs without mosaic and mixup, as in YOLOX (https://arxiv.org/abs/2107.08430).

    The epoch is told to the sampler (:class:`~detlit.data.DetectionSampler`, or any that has ``mosaic_off_epoch``),
    whose indices then ask for images that are not combined with others: workers stay alive, and a resumed run needs no
    state.

    Args:
        num_epochs: at the end of the run; 0 never turns mosaic off.

    Raises:
        ConfigurationError: a negative number; when training starts, a run without a last epoch, or loaders without such
            a sampler.
    """

    def __init__(self, num_epochs: int = 10) -> None:
        if num_epochs < 0:
            raise ConfigurationError(f"CloseMosaic num_epochs={num_epochs} is negative: give 0 or more.")
        self.num_epochs = num_epochs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the data module, which makes its sampler later."""
        if trainer.max_epochs is None or trainer.max_epochs < 0:
            raise ConfigurationError(
                "CloseMosaic needs to know the last epoch, and this run has none: set trainer.max_epochs."
            )
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(datamodule, "mosaic_off_epoch"):
            datamodule.mosaic_off_epoch = self._first_epoch_without(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell samplers that were made by others."""
        samplers = list(_samplers(trainer))
        if not samplers:
            raise ConfigurationError(
                "CloseMosaic finds no sampler with mosaic_off_epoch: train with DetectionDataModule, give the loader a "
                "DetectionSampler, or leave the callback out."
            )
        for sampler in samplers:
            sampler.mosaic_off_epoch = self._first_epoch_without(trainer)

    def _first_epoch_without(self, trainer: Trainer) -> int:
        return (trainer.max_epochs or 0) - self.num_epochs


def _samplers(trainer: Trainer) -> Iterator[Any]:
    for loader in CombinedLoader(trainer.train_dataloader).flattened:
        sampler = getattr(loader, "sampler", None)
        if hasattr(sampler, "mosaic_off_epoch"):
            yield sampler
