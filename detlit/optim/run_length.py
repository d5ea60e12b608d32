"""Schedules in a Trainer: when they step, and how they learn the length of the run."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from detlit.errors import ConfigurationError

__all__ = ["stepped_schedule", "with_total_steps"]


def stepped_schedule(scheduler: LRScheduler | ReduceLROnPlateau) -> dict[str, Any]:
    """Return what Lightning wants to know of a scheduler: it steps after every optimizer step.

    :class:`~torch.optim.lr_scheduler.ReduceLROnPlateau` steps after every epoch by its ``monitor``, ``val/map`` unless
    it has such an attribute (Lightning's subclass does).

    Raises:
        ConfigurationError: a plateau whose ``mode`` is ``"min"`` watches a mAP, which rises.
    """
    if not isinstance(scheduler, ReduceLROnPlateau):
        return {"scheduler": scheduler, "interval": "step"}
    monitor = getattr(scheduler, "monitor", "val/map")
    if scheduler.mode == "min" and "/map" in monitor:
        raise ConfigurationError(
            f"ReduceLROnPlateau with mode='min' would take a rising {monitor} for a plateau: set mode to 'max'."
        )
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


def with_total_steps(
    factory: Callable[..., LRScheduler | ReduceLROnPlateau],
    total_steps: Callable[[], float],
    total_epochs: Callable[[], int | None] = lambda: None,
) -> Callable[..., LRScheduler | ReduceLROnPlateau]:
    """Give a scheduler factory whose ``total_steps`` is ``None``, given or by default, the length of the run.

    Args:
        factory: a scheduler class, or a :func:`functools.partial` of one.
        total_steps: asked for the length, in optimizer steps, if it is needed.
        total_epochs: asked for the length in epochs, likewise, where the factory has a ``total_epochs``; ``None`` or
            less than 1 is no end.

    Raises:
        ConfigurationError: the run has no end.
    """
    known: dict[str, int] = {}
    if _lacks(factory, "total_steps"):
        steps = total_steps()
        if math.isinf(steps):
            raise ConfigurationError(
                "the schedule needs to know the length of the run, and max_epochs=-1 has no end: set "
                "trainer.max_epochs, trainer.max_steps or the scheduler's total_steps."
            )
        known["total_steps"] = int(steps)
    if _lacks(factory, "total_epochs"):
        epochs = total_epochs()
        if epochs is not None and epochs > 0:
            known["total_epochs"] = epochs
    return functools.partial(factory, **known) if known else factory


def _lacks(factory: Callable[..., object], name: str) -> bool:
    """Tell whether a factory has an argument of this name that is ``None``."""
    given = factory.keywords if isinstance(factory, functools.partial) else {}
    parameters = inspect.signature(factory).parameters
    default = parameters[name].default if name in parameters else ...
    return given.get(name, default) is None
