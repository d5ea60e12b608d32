"""How many images an optimizer step sees."""

from lightning.pytorch import Trainer

from detlit.errors import ConfigurationError

__all__ = ["effective_batch_size"]


def effective_batch_size(trainer: Trainer, accumulate: int | None = None) -> int:
    """Return batch size times processes times accumulated batches, once the training data are loaded.

    Args:
        trainer: is fitting.
        accumulate: batches per optimizer step, the Trainer's own unless given.

    Raises:
        ConfigurationError: the data loader does not tell its batch size.
    """
    loader = trainer.train_dataloader
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    if not isinstance(size, int):
        raise ConfigurationError(
            f"the batch size of {type(loader).__name__} is not known: train with a DataLoader whose batch_size, or "
            "whose batch sampler's batch_size, is set."
        )
    return size * trainer.world_size * (accumulate or trainer.accumulate_grad_batches)
