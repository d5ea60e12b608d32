"""Another validation of a run with other weights, logged under names of its own."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from detlit.callbacks.precise_batch_norm import PreciseBatchNorm

__all__ = ["renamed", "validate_again"]


def renamed(name: str, suffix: str) -> str:
    """Return ``val_raw/map`` for ``val/map`` and the suffix ``raw``, and ``val_loss_raw`` for ``val_loss``."""
    head, slash, rest = name.partition("/")
    return f"{head}_{suffix}{slash}{rest}"


def validate_again(trainer: Trainer, pl_module: LightningModule, suffix: str) -> None:
    """Run the validation loop of ``fit`` with the module as it is.

    No callback but :class:`~detlit.callbacks.PreciseBatchNorm` hears of it, so that no checkpoint is written and
    nothing is counted twice; training goes on with the random numbers it would have had. What the module logs with
    ``log`` gets other names, see :func:`renamed`.

    Args:
        trainer: is fitting, and not validating just now.
        pl_module: the module that is trained.
        suffix: what the names of the logged values get.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    progress = copy.deepcopy(loop.batch_progress.state_dict())
    stage, callbacks = trainer.state.stage, trainer.callbacks  # type: ignore[attr-defined]
    listening = [callback for callback in callbacks if isinstance(callback, PreciseBatchNorm)]
    trainer.validating, trainer.callbacks = True, listening  # type: ignore[attr-defined]
    try:
        with _renamed_logs(pl_module, suffix), isolate_rng():
            type(loop).run(loop)  # whatever a callback put in the place of the loop's own
    finally:
        trainer.state.stage, trainer.callbacks = stage, callbacks  # type: ignore[attr-defined]
        loop.batch_progress.load_state_dict(progress)


@contextmanager
def _renamed_logs(pl_module: LightningModule, suffix: str) -> Iterator[None]:
    log = pl_module.log

    def log_renamed(name: str, *args: Any, **kwargs: Any) -> None:
        log(renamed(name, suffix), *args, **kwargs)

    pl_module.log = log_renamed  # type: ignore[method-assign]
    try:
        yield
    finally:
        del pl_module.log
