"""Running a training step that is not part of training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng

__all__ = ["unnoticed"]


@contextmanager
def unnoticed(pl_module: LightningModule) -> Iterator[None]:
    """Log nothing, and go on afterwards with the random numbers that would have come and the buffers as they were."""
    log = vars(pl_module).pop("log", None)
    buffers = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]

    def ignore(*args: Any, **kwargs: Any) -> None:
        """Take the place of ``log``."""

    pl_module.log = ignore  # type: ignore[method-assign]
    try:
        with isolate_rng():
            yield
    finally:
        del pl_module.log
        if log is not None:
            pl_module.log = log  # type: ignore[method-assign]
        for buffer, value in buffers:
            buffer.copy_(value)
