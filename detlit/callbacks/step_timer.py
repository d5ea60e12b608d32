"""Where the time of a training step goes."""

import time
from collections import defaultdict
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from detlit.callbacks.out_of_memory import images_of
from detlit.errors import ConfigurationError

__all__ = ["StepTimer"]


class StepTimer(Callback):
    """Log how long the parts of a training step take, the images per second, and the peak of device memory.

    Logged every ``every_n_steps`` optimizer steps, means per batch over the batches since: ``time/data`` (waiting for
    the loader, and the transfer to the device), ``time/forward`` with the loss, ``time/backward``, ``time/optimizer``
    and the rest of the step, all in seconds; ``time/images_per_second`` of this process, also in the progress bar; and
    on CUDA ``memory/peak_gib``. Unless ``synchronize``, work that a GPU does later counts where the host waits for it.

    Args:
        every_n_steps: optimizer steps between two entries.
        synchronize: wait for the device between the parts, so that each gets its own time; this slows training down.
    """

    def __init__(self, every_n_steps: int = 50, synchronize: bool = False) -> None:
        if every_n_steps < 1:
            raise ConfigurationError(f"every_n_steps={every_n_steps} is too small: set it to 1 or more.")
        self.every_n_steps = every_n_steps
        self.synchronize = synchronize
        self._mark = 0.0
        self._seconds: dict[str, float] = defaultdict(float)
        self._batches = 0
        self._images = 0
        self._last_step = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock after a pause, such as validation."""
        self._start(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock after a pause."""
        self._mark = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """End the wait for data."""
        self._lap("data", pl_module)
        images = images_of(batch)
        self._images += 0 if images is None else len(images)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """End the forward pass."""
        self._lap("forward", pl_module)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the backward pass."""
        self._lap("backward", pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Begin the optimizer's step."""
        self._lap("backward", pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the step, and log now and then."""
        self._lap("optimizer", pl_module)
        self._batches += 1
        if trainer.global_step != self._last_step and trainer.global_step % self.every_n_steps == 0:
            values = {f"time/{part}": seconds / self._batches for part, seconds in self._seconds.items()}
            speed = self._images / max(sum(self._seconds.values()), 1e-9)
            pl_module.log_dict(values, on_step=True, on_epoch=False)
            pl_module.log("time/images_per_second", speed, on_step=True, on_epoch=False, prog_bar=True)
            if pl_module.device.type == "cuda":
                peak = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
                pl_module.log("memory/peak_gib", peak, on_step=True, on_epoch=False, prog_bar=True)
            self._start(trainer)
        self._last_step = trainer.global_step

    def _start(self, trainer: Trainer) -> None:
        self._seconds, self._batches, self._images = defaultdict(float), 0, 0
        self._last_step, self._mark = trainer.global_step, time.perf_counter()

    def _lap(self, part: str, pl_module: LightningModule) -> None:
        if self.synchronize and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        now = time.perf_counter()
        self._seconds[part] += now - self._mark
        self._mark = now
