"""Learning rate schedules, stepped after every optimizer step: a warm-up, a shape, and a cool-down."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detlit.errors import ConfigurationError

__all__ = ["WarmupCosine", "WarmupExponential", "WarmupPoly", "WarmupSchedule", "WarmupStep"]


class WarmupSchedule(LRScheduler):
    """Linear warm-up, then a shape down from the peak, then a cool-down at its end; each group keeps its own peak.

    The rate is a closed form of the step. With ``W`` steps of warm-up, ``D`` of cool-down and ``T`` in all, step ``s``
    has ``(s + 1) / (W + 1)`` of the peak before ``W``, and ``shape((s - W) / (T - 1 - D - W))`` from then on; from step
    ``T - 1 - D`` on, and past the end, ``shape(1)``. A checkpoint holds the position, not the shape: a run that is
    resumed with more epochs goes on along the longer curve. A schedule of one's own defines :meth:`shape` alone::

        class Linear(WarmupSchedule):
            def shape(self, progress: float) -> float:
                return 1 - progress

    Args:
        optimizer: its groups' ``lr`` are the peaks.
        total_steps: optimizer steps of the run; ``None`` lets :class:`~detlit.module.DetectionModule` fill in the
            Trainer's number.
        warmup_steps: optimizer steps of the warm-up (an integer), or their share of the run (a number below 1); 0.05
            unless ``warmup_epochs`` is given.
        warmup_epochs: epochs of the warm-up instead; may be a fraction.
        cooldown_steps: optimizer steps at the final rate, or their share of the run.
        total_epochs: epochs of the run, which ``warmup_epochs`` needs; filled in as ``total_steps`` is.
        last_epoch: steps taken so far, as in every torch scheduler; -1 starts a run.

    Raises:
        ConfigurationError: no length, two warm-ups, or a warm-up and cool-down that do not end within the run.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_steps: int | float | None = None,
        warmup_epochs: float | None = None,
        cooldown_steps: int | float = 0,
        total_epochs: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            raise ConfigurationError(
                f"{type(self).__name__} has total_steps=None and no Trainer to ask: give the number of optimizer steps."
            )
        if warmup_epochs is not None:
            if warmup_steps is not None:
                raise ConfigurationError(
                    f"there are two warm-ups, warmup_steps={warmup_steps} and warmup_epochs={warmup_epochs}: keep one."
                )
            warmup_steps = _steps_of_epochs(warmup_epochs, total_steps, total_epochs)
        self.total_steps = total_steps
        self.warmup_steps = _steps("warmup_steps", 0.05 if warmup_steps is None else warmup_steps, total_steps)
        self.cooldown_steps = _steps("cooldown_steps", cooldown_steps, total_steps)
        if self.warmup_steps + self.cooldown_steps >= total_steps:
            cooldown = f" and the cool-down {self.cooldown_steps}" if self.cooldown_steps else ""
            raise ConfigurationError(
                f"the warm-up takes {self.warmup_steps} optimizer steps{cooldown} and the whole run {total_steps}: "
                "shorten it or train longer."
            )
        self._of_the_shape = [*vars(self), "_of_the_shape"]
        super().__init__(optimizer, last_epoch)

    @abstractmethod
    def shape(self, progress: float) -> float:
        """Return the fraction of the peak at a progress from 0, the end of the warm-up, to 1."""

    def factor(self, step: int) -> float:
        """Return the fraction of the peak after ``step`` optimizer steps."""
        if step < self.warmup_steps:
            return self.shape(0.0) * (step + 1) / (self.warmup_steps + 1)
        length = self.total_steps - 1 - self.cooldown_steps - self.warmup_steps
        return self.shape(min(1.0, (step - self.warmup_steps) / max(1, length)))

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group at the current step."""
        factor = self.factor(self.last_epoch)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the schedule, without its shape."""
        return {key: value for key, value in super().state_dict().items() if key not in self._of_the_shape}


class WarmupCosine(WarmupSchedule):
    """Half a cosine from the peak to a fraction of it, eq. 5 of https://arxiv.org/abs/1608.03983 without restarts.

    Args:
        optimizer: see :class:`WarmupSchedule`, also for the arguments that are not here.
        total_steps: likewise.
        warmup_steps: likewise.
        final_ratio: the last learning rate as a fraction of the peak.
        warmup_epochs: see :class:`WarmupSchedule`.
        cooldown_steps: likewise.
        total_epochs: likewise.
        last_epoch: likewise.

    Raises:
        ConfigurationError: see :class:`WarmupSchedule`; or a ratio outside [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_steps: int | float | None = None,
        final_ratio: float = 0.01,
        warmup_epochs: float | None = None,
        cooldown_steps: int | float = 0,
        total_epochs: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        self.final_ratio = _checked_ratio("final_ratio", final_ratio)
        super().__init__(optimizer, total_steps, warmup_steps, warmup_epochs, cooldown_steps, total_epochs, last_epoch)

    def shape(self, progress: float) -> float:
        """Return ``r + (1 - r) * (1 + cos(pi * progress)) / 2``."""
        return self.final_ratio + (1.0 - self.final_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))


class WarmupPoly(WarmupSchedule):
    """A power of what is left of the run, from the peak to a fraction of it.

    Args:
        optimizer: see :class:`WarmupSchedule`, also for the arguments that are not here.
        total_steps: likewise.
        warmup_steps: likewise.
        power: 1 is a straight line; more falls steeper at first.
        final_ratio: the last learning rate as a fraction of the peak.
        warmup_epochs: see :class:`WarmupSchedule`.
        cooldown_steps: likewise.
        total_epochs: likewise.
        last_epoch: likewise.

    Raises:
        ConfigurationError: see :class:`WarmupSchedule`; or a ratio outside [0, 1], or a power that is not positive.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_steps: int | float | None = None,
        power: float = 0.9,
        final_ratio: float = 0.0,
        warmup_epochs: float | None = None,
        cooldown_steps: int | float = 0,
        total_epochs: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        if not power > 0:
            raise ConfigurationError(f"power={power} does not lower the learning rate: choose a positive one.")
        self.power = power
        self.final_ratio = _checked_ratio("final_ratio", final_ratio)
        super().__init__(optimizer, total_steps, warmup_steps, warmup_epochs, cooldown_steps, total_epochs, last_epoch)

    def shape(self, progress: float) -> float:
        """Return ``r + (1 - r) * (1 - progress) ** power``."""
        remaining: float = (1.0 - progress) ** self.power
        return self.final_ratio + (1.0 - self.final_ratio) * remaining


class WarmupExponential(WarmupSchedule):
    """The same factor in every step, from the peak to a fraction of it.

    Args:
        optimizer: see :class:`WarmupSchedule`, also for the arguments that are not here.
        total_steps: likewise.
        warmup_steps: likewise.
        final_ratio: the last learning rate as a fraction of the peak; ``gamma ** epochs`` for a factor per epoch.
        warmup_epochs: see :class:`WarmupSchedule`.
        cooldown_steps: likewise.
        total_epochs: likewise.
        last_epoch: likewise.

    Raises:
        ConfigurationError: see :class:`WarmupSchedule`; or a ratio outside [0, 1], or of 0, which no factor reaches.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_steps: int | float | None = None,
        final_ratio: float = 0.01,
        warmup_epochs: float | None = None,
        cooldown_steps: int | float = 0,
        total_epochs: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        self.final_ratio = _checked_ratio("final_ratio", final_ratio)
        if final_ratio == 0.0:
            raise ConfigurationError("final_ratio=0 is never reached by a factor per step: choose more than 0.")
        super().__init__(optimizer, total_steps, warmup_steps, warmup_epochs, cooldown_steps, total_epochs, last_epoch)

    def shape(self, progress: float) -> float:
        """Return ``r ** progress``."""
        ratio: float = self.final_ratio**progress
        return ratio


class WarmupStep(WarmupSchedule):
    """Steps down, each by the same factor; no milestones keep the peak.

    Args:
        optimizer: see :class:`WarmupSchedule`, also for the arguments that are not here.
        total_steps: likewise.
        warmup_steps: likewise.
        milestones: where the steps are, as shares of the time between warm-up and cool-down.
        ratio: each rate as a fraction of the one before.
        warmup_epochs: see :class:`WarmupSchedule`.
        cooldown_steps: likewise.
        total_epochs: likewise.
        last_epoch: likewise.

    Raises:
        ConfigurationError: see :class:`WarmupSchedule`; or a milestone or ratio outside [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_steps: int | float | None = None,
        milestones: Sequence[float] = (0.6, 0.9),
        ratio: float = 0.1,
        warmup_epochs: float | None = None,
        cooldown_steps: int | float = 0,
        total_epochs: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = [_checked_ratio("milestone", milestone) for milestone in milestones]
        self.ratio = _checked_ratio("ratio", ratio)
        super().__init__(optimizer, total_steps, warmup_steps, warmup_epochs, cooldown_steps, total_epochs, last_epoch)

    def shape(self, progress: float) -> float:
        """Return ``ratio ** n`` after ``n`` milestones."""
        ratio: float = self.ratio ** sum(milestone <= progress for milestone in self.milestones)
        return ratio


def _checked_ratio(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ConfigurationError(f"{name}={value} is no fraction: choose a number between 0 and 1.")
    return value


def _steps(name: str, length: int | float, total_steps: int) -> int:
    """Return a number or share of the run's steps as a number."""
    if length < 0 or (isinstance(length, float) and length >= 1):
        raise ConfigurationError(
            f"{name}={length} is neither a number of steps nor a share of the run: "
            "give an integer, or a number between 0 and 1."
        )
    return int(length * total_steps) if isinstance(length, float) else length


def _steps_of_epochs(epochs: float, total_steps: int, total_epochs: int | None) -> int:
    """Return epochs of a run in steps."""
    if total_epochs is None:
        raise ConfigurationError(
            f"warmup_epochs={epochs} needs the epochs of the run, and nothing tells them: give total_epochs, set "
            "trainer.max_epochs, or give warmup_steps."
        )
    if epochs < 0:
        raise ConfigurationError(f"warmup_epochs={epochs} is before the start of training: choose 0 or more.")
    return round(epochs / total_epochs * total_steps)
