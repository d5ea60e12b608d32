"""Learning rate schedules, stepped after every optimizer step."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from detlit.errors import ConfigurationError

__all__ = ["WarmupCosine", "warmup_cosine", "with_total_steps"]


def warmup_cosine(step: int, total_steps: int, warmup_steps: int, final_ratio: float) -> float:
    """Return the learning rate of a step as a fraction of the peak: a line up, then half a cosine down.

    The warm-up is ``(step + 1) / (warmup_steps + 1)``; the peak is at ``step = warmup_steps``, ``final_ratio`` at
    ``step = total_steps - 1``. The cosine is eq. 5 of https://arxiv.org/abs/1608.03983 without restarts.

    Args:
        step: optimizer steps taken so far; past the end the rate stays at ``final_ratio``.
        total_steps: optimizer steps of the run.
        warmup_steps: steps before the peak.
        final_ratio: the last rate as a fraction of the peak.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
    return final_ratio + (1.0 - final_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))


class WarmupCosine(LRScheduler):
    """Linear warm-up, then a cosine from the peak down to a fraction of it; each group keeps its own peak.

    The rate is a closed form of the step, see :func:`warmup_cosine`. A checkpoint holds the position, not the shape: a
    run that is resumed with more epochs goes on along the longer cosine.

    Args:
        optimizer: its groups' ``lr`` are the peaks.
        total_steps: optimizer steps of the run; ``None`` lets :class:`~detlit.module.DetectionModule` fill in the
            Trainer's number.
        warmup_steps: optimizer steps of the warm-up (an integer), or their share of the run (a number below 1).
        final_ratio: the last learning rate as a fraction of the peak.
        last_epoch: steps taken so far, as in every torch scheduler; -1 starts a run.

    Raises:
        ConfigurationError: no length, a warm-up that does not end within the run, or a ratio outside [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_steps: int | float = 0.05,
        final_ratio: float = 0.01,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            raise ConfigurationError(
                "WarmupCosine has total_steps=None and no Trainer to ask: give the number of optimizer steps."
            )
        if not 0.0 <= final_ratio <= 1.0:
            raise ConfigurationError(
                f"final_ratio={final_ratio} is no fraction of the peak learning rate: choose one between 0 and 1."
            )
        self.total_steps = total_steps
        self.warmup_steps = _warmup_length(warmup_steps, total_steps)
        self.final_ratio = final_ratio
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group at the current step."""
        factor = warmup_cosine(self.last_epoch, self.total_steps, self.warmup_steps, self.final_ratio)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the schedule, without its shape."""
        shape = ("total_steps", "warmup_steps", "final_ratio")
        return {key: value for key, value in super().state_dict().items() if key not in shape}


def _warmup_length(warmup_steps: int | float, total_steps: int) -> int:
    """Return the warm-up in steps, checked against the length of the run."""
    if warmup_steps < 0 or (isinstance(warmup_steps, float) and warmup_steps >= 1):
        raise ConfigurationError(
            f"warmup_steps={warmup_steps} is neither a number of steps nor a share of the run: "
            "give an integer, or a number between 0 and 1."
        )
    steps = int(warmup_steps * total_steps) if isinstance(warmup_steps, float) else warmup_steps
    if steps >= total_steps:
        raise ConfigurationError(
            f"the warm-up takes {steps} optimizer steps and the whole run {total_steps}: "
            "shorten warmup_steps or train longer."
        )
    return steps


def with_total_steps(
    factory: Callable[..., LRScheduler | ReduceLROnPlateau], total_steps: Callable[[], float]
) -> Callable[..., LRScheduler | ReduceLROnPlateau]:
    """Give a scheduler factory whose ``total_steps`` is ``None``, given or by default, the length of the run.

    Args:
        factory: a scheduler class, or a :func:`functools.partial` of one.
        total_steps: asked for the length, in optimizer steps, if it is needed.

    Raises:
        ConfigurationError: the run has no end.
    """
    given = factory.keywords if isinstance(factory, functools.partial) else {}
    parameters = inspect.signature(factory).parameters
    default = parameters["total_steps"].default if "total_steps" in parameters else ...
    if given.get("total_steps", default) is not None:
        return factory
    steps = total_steps()
    if math.isinf(steps):
        raise ConfigurationError(
            "the schedule needs to know the length of the run, and max_epochs=-1 has no end: set trainer.max_epochs, "
            "trainer.max_steps or the scheduler's total_steps."
        )
    return functools.partial(factory, total_steps=int(steps))
