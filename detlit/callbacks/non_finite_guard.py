"""A guard against steps that would ruin the weights."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from detlit.errors import ConfigurationError, TrainingError
from detlit.structures import Batch

__all__ = ["NonFiniteGuard"]


class NonFiniteGuard(Callback):
    """Drop optimizer steps whose gradient is not finite, and stop when they do not end.

    A loss that is NaN or infinite makes gradients that are; under DDP every rank sees the reduced ones and decides the
    same. A dropped step leaves weights and optimizer state alone, and the running statistics of batch norm, which the
    forward pass has spoiled by then, are those of the last good step. The ids of the step's images go to
    ``non_finite_RANK.jsonl`` in the folder of the logs. With ``16-mixed`` the gradient scaler drops steps, as it must
    now and then, and this guard does nothing.

    On a CPU every step is looked at. On other devices looking means waiting for the device: that happens once in
    ``check_every_n_steps`` steps, and in between a gradient that is not finite is set to zero on the device, where
    weight decay and momentum still move the weights.

    Args:
        stop_after: dropped steps in a row after which the run ends; the run can be resumed from its last checkpoint.
        check_every_n_steps: optimizer steps between two looks, on devices other than CPUs.

    Raises:
        TrainingError: during training, ``stop_after`` steps in a row were dropped.
    """

    def __init__(self, stop_after: int = 10, check_every_n_steps: int = 20) -> None:
        for name, value in (("stop_after", stop_after), ("check_every_n_steps", check_every_n_steps)):
            if value < 1:
                raise ConfigurationError(f"{name}={value} is too small: set it to 1 or more.")
        self.stop_after = stop_after
        self.check_every_n_steps = check_every_n_steps
        self.dropped = 0
        self.looks = 0
        self._recent: list[dict[str, Any]] = []
        self._images: list[Any] = []
        self._counts: Tensor | None = None  # on the device: dropped in all, dropped in a row
        self._buffers: list[Tensor] = []
        self._good: list[Tensor] = []
        self._folder = Path()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the folder on every rank (``log_dir`` broadcasts), and the statistics to keep."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)
        self._counts = torch.zeros(2, dtype=torch.int64, device=pl_module.device)
        self._buffers = [buffer for buffer in pl_module.buffers() if buffer.is_floating_point()]
        self._good = [buffer.clone() for buffer in self._buffers]
        self.dropped, self.looks, self._recent, self._images = 0, 0, [], []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember which images the step is about."""
        self._images += batch.image_ids if isinstance(batch, Batch) else [f"batch {batch_idx}"]

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop the step if its gradient is not finite."""
        record = {"step": trainer.global_step, "epoch": trainer.current_epoch, "images": self._images}
        self._images = []
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients or self._counts is None or getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        finite = torch.stack(torch._foreach_norm(gradients)).sum().isfinite()
        self._counts += torch.stack((~finite, ~finite)).long()
        self._counts[1] *= ~finite
        self._recent = [*self._recent, record][-self.check_every_n_steps :]
        free = self._looking_is_free(finite.device)
        if free or (trainer.global_step + 1) % self.check_every_n_steps == 0:
            self._look(trainer, optimizer, [record] if free else self._recent)
        else:
            for gradient in gradients:
                gradient.masked_fill_(~finite, 0.0)
        self._keep_good_statistics(finite)

    def _looking_is_free(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def _keep_good_statistics(self, finite: Tensor) -> None:
        good = [torch.where(finite, now, before) for now, before in zip(self._buffers, self._good, strict=True)]
        if good:
            torch._foreach_copy_(self._good, good)
            torch._foreach_copy_(self._buffers, good)

    def _look(self, trainer: Trainer, optimizer: Optimizer, suspects: list[dict[str, Any]]) -> None:
        """Read the counts, the one moment that waits for the device."""
        assert self._counts is not None
        total, in_a_row = self._counts.tolist()
        self.looks += 1
        new, self.dropped = total - self.dropped, total
        if in_a_row:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        if new:
            file = self._folder / f"non_finite_{trainer.global_rank}.jsonl"
            self._folder.mkdir(parents=True, exist_ok=True)
            with file.open("a") as lines:
                lines.writelines(json.dumps(record) + "\n" for record in suspects)
            rank_zero_warn(
                f"Step {trainer.global_step}: {new} gradient(s) were not finite and their steps dropped ({total} so "
                f"far); the images are listed in {file}."
            )
        if in_a_row >= self.stop_after:
            raise TrainingError(
                f"{in_a_row} steps in a row had gradients that are not finite (images in {self._folder}): resume from "
                "the last checkpoint with a lower learning rate, trainer.gradient_clip_val=10, a longer warm-up, or "
                "trainer.precision=32-true."
            )
