"""Warm-up of learning rate, momentum and accumulation beside any scheduler."""

import functools
import math
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer, lr_scheduler

from detlit.callbacks.effective_batch import effective_batch_size
from detlit.errors import ConfigurationError
from detlit.optim import WarmupSchedule

__all__ = ["LRWarmup"]


class LRWarmup(Callback):
    """Start with a small learning rate, section 2.2 of https://arxiv.org/abs/1706.02677, whatever the scheduler.

    Rates are changed within ``optimizer.step()`` and put back, so that no scheduler, checkpoint or logger of rates sees
    them: after the warm-up the schedule is where it would be without. In step ``s`` of ``W``, counted from 0, a value
    is at ``(s + 1) / (W + 1)`` of the way from its start to where the schedule has it, which depends on nothing but the
    number of optimizer steps: resuming is exact. What is applied is logged as ``lr_applied/<name or number of group>``.

    It works on any LightningModule; ``bias_lr`` needs optimizer groups whose names end in ``bias``, as those of
    :func:`~detlit.optim.parameter_groups` do.

    Args:
        steps: optimizer steps of the warm-up; 0 for none, e.g. with ``reference_batch_size`` alone.
        epochs: epochs of the warm-up instead; may be a fraction.
        start_factor: learning rates start at this fraction of the scheduled ones.
        bias_lr: learning rate that the groups of biases start from instead, which may be high (YOLOv5, YOLOv6: 0.1).
        momentum: start of ``momentum``, or of the first of ``betas``; ``None`` leaves it alone (YOLOv6: 0.8).
        accumulate: let the batches per optimizer step rise from 1 to the Trainer's ``accumulate_grad_batches`` on the
            way. A step in which the number changes begins at a multiple of both; the run then takes more steps than the
            Trainer expects, and schedules stay at their end for the rest.
        reference_batch_size: the batch size that the learning rates are meant for; they are multiplied, in the whole
            run, by the effective batch (images, processes and accumulated batches) over this. ``None`` does not.

    Raises:
        ConfigurationError: an argument out of range, or steps and epochs; when training starts, a warm-up that does not
            end within the run, another warm-up, or an optimizer without momentum to warm up.
    """

    def __init__(
        self,
        steps: int | None = None,
        epochs: float | None = None,
        start_factor: float = 0.0,
        bias_lr: float | None = None,
        momentum: float | None = None,
        accumulate: bool = False,
        reference_batch_size: int | None = None,
    ) -> None:
        if (steps is None) == (epochs is None):
            raise ConfigurationError(
                f"LRWarmup has steps={steps} and epochs={epochs}: give the length of the warm-up in one of them."
            )
        for name, value in (("steps", steps), ("epochs", epochs), ("bias_lr", bias_lr)):
            if value is not None and not value >= 0:
                raise ConfigurationError(f"LRWarmup {name}={value} is negative: choose 0 or more.")
        for name, value in (("start_factor", start_factor), ("momentum", momentum)):
            if value is not None and not 0.0 <= value <= 1.0:
                raise ConfigurationError(f"LRWarmup {name}={value} is no fraction: choose a number between 0 and 1.")
        if reference_batch_size is not None and reference_batch_size < 1:
            raise ConfigurationError(
                f"LRWarmup reference_batch_size={reference_batch_size} is no batch: choose 1 or more."
            )
        self.steps = steps
        self.epochs = epochs
        self.start_factor = start_factor
        self.bias_lr = bias_lr
        self.momentum = momentum
        self.accumulate = accumulate
        self.reference_batch_size = reference_batch_size
        self._length = 0
        self._scale = 1.0
        self._accumulated: int | None = None
        self._full_accumulation = 1
        self._applied: dict[str, float] = {}
        self._hooks: list[Any] = []
        self._scheduled: list[_Scheduled] = []

    # ---------------------------------------------------------------------------------------------- start, end
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        self._accumulated = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the warm-up against the run, and listen to the optimizers."""
        self._full_accumulation = trainer.accumulate_grad_batches
        self._length = self._length_in_steps(trainer)
        _refuse_a_second_warmup(trainer, self._length)
        self._scale = 1.0
        if self.reference_batch_size is not None:
            self._scale = effective_batch_size(trainer) / self.reference_batch_size
        for optimizer in trainer.optimizers:
            if self.momentum is not None and not any(map(_momentum, optimizer.param_groups)):
                raise ConfigurationError(
                    f"LRWarmup momentum={self.momentum} has nothing to warm up, as this {type(optimizer).__name__} has "
                    "neither momentum nor betas: leave it out, or set the optimizer's."
                )
            scheduled = _Scheduled(optimizer)
            self._scheduled.append(scheduled)
            before = functools.partial(self._before_step, trainer, scheduled)
            self._hooks.append(optimizer.register_step_pre_hook(before))
            self._hooks.append(optimizer.register_step_post_hook(scheduled.after_step))
        if self.accumulate and self._accumulated is not None:
            trainer.accumulate_grad_batches = self._accumulated

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers and the Trainer as they were."""
        self._stop(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers and the Trainer as they were."""
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self._hooks:
            trainer.accumulate_grad_batches = self._full_accumulation
        for hook in self._hooks:
            hook.remove()
        for scheduled in self._scheduled:  # an interrupted step
            scheduled.restore()
        self._hooks, self._scheduled = [], []

    def _length_in_steps(self, trainer: Trainer) -> int:
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        length = round((self.epochs or 0.0) * per_epoch) if self.steps is None else self.steps
        total = trainer.estimated_stepping_batches
        if length >= total:
            raise ConfigurationError(
                f"LRWarmup takes {length} optimizer steps and the whole run {int(total)}: shorten it or train longer."
            )
        return length

    # --------------------------------------------------------------------------------------------------- steps
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Accumulate as many batches as the warm-up has come to."""
        if not self.accumulate:
            return
        progress = min(1.0, trainer.global_step / self._length) if self._length else 1.0
        wanted = max(1, round(1 + progress * (self._full_accumulation - 1)))
        if batch_idx % trainer.accumulate_grad_batches == 0 and batch_idx % wanted == 0:
            trainer.accumulate_grad_batches = wanted
        self._accumulated = trainer.accumulate_grad_batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the learning rates of the last optimizer step."""
        if self._applied:
            pl_module.log_dict({f"lr_applied/{name}": rate for name, rate in self._applied.items()})
            self._applied = {}

    def _before_step(self, trainer: Trainer, scheduled: "_Scheduled", optimizer: Optimizer, *_: Any) -> None:
        """Put the scheduled values aside, and set those of the warm-up."""
        if scheduled.is_nested():
            return
        warming = trainer.global_step < self._length
        progress = (trainer.global_step + 1) / (self._length + 1) if warming else 1.0
        for index, group in enumerate(optimizer.param_groups):
            name = str(group.get("name", index))
            peak = group["lr"] * self._scale
            start = peak * self.start_factor
            if self.bias_lr is not None and name.rpartition("/")[2] == "bias":
                start = self.bias_lr
            group["lr"] = start + (peak - start) * progress if warming else peak
            if warming and self.momentum is not None:
                _set_momentum(group, self.momentum, progress)
            self._applied[name] = float(group["lr"])

    # ------------------------------------------------------------------------------------------------ checkpoints
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note how many batches are accumulated at this moment."""
        if self._accumulated is not None:
            checkpoint["lr_warmup"] = {"accumulated": self._accumulated}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with as many."""
        self._accumulated = checkpoint.get("lr_warmup", {}).get("accumulated")


class _Scheduled:
    """The values that an optimizer has by its schedule, put aside while it steps.

    A subclass of an optimizer whose ``step`` calls that of its base runs the hooks of both, one within the other.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._values: list[dict[str, Any]] = []
        self._depth = 0

    def is_nested(self) -> bool:
        """Enter a step; tell whether it is within another, and put the values aside if not."""
        self._depth += 1
        if self._depth > 1:
            return True
        keys = ("lr", "momentum", "betas")
        self._values = [{key: group[key] for key in keys if key in group} for group in self._optimizer.param_groups]
        return False

    def after_step(self, *_: Any) -> None:
        """Leave a step."""
        self._depth -= 1
        if self._depth == 0:
            self.restore()

    def restore(self) -> None:
        """Give the optimizer its values back, if they were put aside."""
        for group, values in zip(self._optimizer.param_groups, self._values, strict=False):
            group.update(values)
        self._values, self._depth = [], 0


def _momentum(group: dict[str, Any]) -> float:
    """Return the momentum of a group, 0 where it has none."""
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))


def _set_momentum(group: dict[str, Any], start: float, progress: float) -> None:
    value = start + (_momentum(group) - start) * progress
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    elif group.get("momentum"):
        group["momentum"] = value


def _refuse_a_second_warmup(trainer: Trainer, length: int) -> None:
    others = [callback for callback in trainer.callbacks if isinstance(callback, LRWarmup)]  # type: ignore[attr-defined]
    if len(others) > 1:
        raise ConfigurationError("there are two LRWarmup callbacks: keep one.")
    for config in trainer.lr_scheduler_configs:
        for scheduler in _with_parts(config.scheduler):
            if length and _warms_up(scheduler):
                raise ConfigurationError(
                    f"there are two warm-ups, LRWarmup and that of {type(scheduler).__name__}: drop the callback, or "
                    "take the scheduler's away (warmup_steps=0)."
                )


def _with_parts(scheduler: Any) -> Iterator[Any]:
    """Yield a scheduler and those it is made of."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _with_parts(part)


def _warms_up(scheduler: Any) -> bool:
    if isinstance(scheduler, WarmupSchedule):
        return scheduler.warmup_steps > 0
    if isinstance(scheduler, lr_scheduler.LinearLR):
        return scheduler.start_factor < scheduler.end_factor
    if isinstance(scheduler, lr_scheduler.ConstantLR):
        return scheduler.factor < 1
    return isinstance(scheduler, (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR))
