"""A sentence for memory that runs out."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from detlit.callbacks.learning_guard import objects_in
from detlit.structures import Batch

__all__ = ["OutOfMemoryHelp", "images_of", "is_out_of_memory"]


class OutOfMemoryHelp(Callback):
    """Say which batch did not fit into memory: the message of the error gets its size and number of objects."""

    def __init__(self) -> None:
        self._batch = ""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the sizes of the batch."""
        self._batch = f"training batch {batch_idx}{_sizes_of(batch)}"

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Remember the sizes of the batch."""
        self._batch = f"validation batch {batch_idx}{_sizes_of(batch)}"

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Complete the message."""
        if is_out_of_memory(exception) and self._batch:
            first = (str(exception).splitlines() or [type(exception).__name__])[0]
            exception.args = (
                f"{self._batch} does not fit into memory: lower data.batch_size (and raise "
                "trainer.accumulate_grad_batches), use a smaller image size or trainer.precision=bf16-mixed. "
                f"({first})",
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device, or the host, has no memory left."""
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error))
    )


def images_of(batch: Any) -> Tensor | None:
    """Return the image tensor of a batch, ``None`` where it has none."""
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    images = batch.images if isinstance(batch, Batch) else batch
    return images if isinstance(images, Tensor) else None


def _sizes_of(batch: Any) -> str:
    images, objects = images_of(batch), objects_in(batch)
    words = "" if images is None else f" of shape {tuple(images.shape)}"
    return words + ("" if objects is None else f" with {objects} objects")
