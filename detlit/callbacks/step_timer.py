"""Where the time of a training step goes."""

from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from detlit.callbacks.out_of_memory import images_of
from detlit.errors import ConfigurationError

__all__ = ["StepTimer"]


class StepTimer(Callback):
    """Log how long the parts of a training step take, the images per second, and the peak of device memory.

    Logged every ``every_n_steps`` optimizer steps and shown in the progress bar, in seconds, means per batch over the
    batches since:

    * ``time/data``: waiting for the loader;
    * ``time/transfer``: to the device, and what is done to a whole batch there;
    * ``time/forward``: the training step but for the loss;
    * ``time/loss``, where the module has a ``loss`` that is a module too; otherwise it is part of the forward pass;
    * ``time/backward``;
    * ``time/optimizer``: clipping, the optimizer's step and what callbacks do after it;
    * ``time/step``: the sum of them.

    ``time/images_per_second`` are those of this process. ``memory/peak_gib``, on CUDA alone, is the most that tensors
    have taken so far. Validation counts nowhere. Unless ``synchronize``, work that a GPU does later counts where the
    host waits for it.

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
        self._seconds: dict[str, float] = {}
        self._batches = 0
        self._images = 0
        self._last_step = 0
        self._in_step = False
        self._watched = False
        self._handles: list[RemovableHandle] = []

    # -------------------------------------------------------------------------------------------- start and end
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and look on where Lightning tells callbacks nothing: at the transfer and the loss."""
        self._watch_transfer(trainer, pl_module)
        loss = getattr(pl_module, "loss", None)
        if isinstance(loss, nn.Module):
            self._handles = [
                loss.register_forward_pre_hook(lambda *_: self._lap_in_step("forward", pl_module)),
                loss.register_forward_hook(lambda *_: self._lap_in_step("loss", pl_module)),
            ]
        self._start(trainer)

    def _watch_transfer(self, trainer: Trainer, pl_module: LightningModule) -> None:
        to_device = trainer.strategy.batch_to_device

        def timed(*args: Any, **kwargs: Any) -> Any:
            if not trainer.training:
                return to_device(*args, **kwargs)
            self._lap("data", pl_module)
            batch = to_device(*args, **kwargs)
            self._lap("transfer", pl_module)
            return batch

        trainer.strategy.batch_to_device = timed  # type: ignore[method-assign]
        self._watched = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock after a pause, such as validation."""
        self._start(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock after a pause."""
        self._mark = perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look on no longer."""
        self._stop(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Look on no longer."""
        self._stop(trainer)

    # -------------------------------------------------------------------------------------------------- the step
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin the forward pass."""
        self._in_step = True
        images = images_of(batch)
        self._images += 0 if images is None else len(images)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """End the forward pass."""
        self._lap("forward", pl_module)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the backward pass."""
        self._lap("backward", pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Begin the optimizer's step, where the gradients of several losses came before it."""
        self._lap("backward", pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the step, and log now and then."""
        self._lap("optimizer", pl_module)
        self._in_step = False
        self._batches += 1
        if trainer.global_step != self._last_step and trainer.global_step % self.every_n_steps == 0:
            pl_module.log_dict(self._entries(pl_module), on_step=True, on_epoch=False, prog_bar=True)
            self._start(trainer)
        self._last_step = trainer.global_step

    def _entries(self, pl_module: LightningModule) -> dict[str, float]:
        total = sum(self._seconds.values())
        entries = {f"time/{part}": seconds / self._batches for part, seconds in self._seconds.items()}
        entries["time/step"] = total / self._batches
        entries["time/images_per_second"] = self._images / max(total, 1e-9)
        if pl_module.device.type == "cuda":
            entries["memory/peak_gib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
        return entries

    # -------------------------------------------------------------------------------------------------- the clock
    def _start(self, trainer: Trainer) -> None:
        self._seconds, self._batches, self._images = {}, 0, 0
        self._last_step, self._mark = trainer.global_step, perf_counter()

    def _stop(self, trainer: Trainer) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._in_step = [], False
        if self._watched:
            del trainer.strategy.batch_to_device
            self._watched = False

    def _lap_in_step(self, part: str, pl_module: LightningModule) -> None:
        """Count a part of a step; validation computes losses too."""
        if self._in_step:
            self._lap(part, pl_module)

    def _lap(self, part: str, pl_module: LightningModule) -> None:
        """Count the time since the last lap for a part."""
        if self.synchronize and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        now = perf_counter()
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._mark
        self._mark = now
