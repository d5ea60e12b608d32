"""Validate rarely at first and often near the end."""

from lightning.pytorch import LightningModule, Trainer

from detlit.callbacks.checkpoints import first_of_last_epochs
from detlit.callbacks.stages import StageSwitch
from detlit.errors import ConfigurationError

__all__ = ["DenseEvaluation"]


class DenseEvaluation(StageSwitch):
    """Validate every so many epochs, and more often in the last ones, as in YOLOv6 (``heavy_eval_range``).

    It sets ``trainer.check_val_every_n_epoch``; the last epoch is validated whatever the intervals.

    Args:
        every_n_epochs: epochs between validations before the last ones.
        last_n_epochs: how many the last ones are.
        every_n_epochs_then: epochs between validations in the last ones.
    """

    def __init__(self, every_n_epochs: int = 10, last_n_epochs: int = 50, every_n_epochs_then: int = 1) -> None:
        given = {
            "every_n_epochs": every_n_epochs,
            "last_n_epochs": last_n_epochs,
            "every_n_epochs_then": every_n_epochs_then,
        }
        for name, value in given.items():
            if value < 1:
                raise ConfigurationError(f"{name}={value} is too small: set it to 1 or more.")
        self.every_n_epochs = every_n_epochs
        self.last_n_epochs = last_n_epochs
        self.every_n_epochs_then = every_n_epochs_then

    def switch(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Choose the interval."""
        near_the_end = epoch >= first_of_last_epochs(self.last_n_epochs, trainer, "last_n_epochs")
        interval = self.every_n_epochs_then if near_the_end else self.every_n_epochs
        trainer.check_val_every_n_epoch = 1 if epoch + 1 == trainer.max_epochs else interval
