"""The callbacks that the command line always adds, for scripts."""

from collections.abc import Iterable

from lightning.pytorch import Callback

from detlit.callbacks.checkpoints import Checkpoint
from detlit.callbacks.ema import EMA
from detlit.callbacks.exact_resume import ExactResume
from detlit.callbacks.graceful_stop import GracefulStop
from detlit.callbacks.learning_guard import LearningGuard
from detlit.callbacks.monitor_guard import MonitorGuard
from detlit.callbacks.non_finite_guard import NonFiniteGuard
from detlit.callbacks.out_of_memory import OutOfMemoryHelp
from detlit.callbacks.summary import RunSummary

__all__ = ["always_on", "default_callbacks"]


def default_callbacks(ema: EMA | None = None, checkpoint: Checkpoint | None = None) -> list[Callback]:
    """Return what makes a run whole: averaged weights, checkpoints, stopping and resuming exactly, guards, a summary.

    Args:
        ema: the moving average, ``EMA()`` unless given.
        checkpoint: which checkpoints to keep, ``Checkpoint()`` unless given.

    For scripts: ``Trainer(callbacks=[*default_callbacks(), ...], plugins=[AtomicCheckpointIO()])`` trains with the same
    guarantees as ``detlit fit``.
    """
    return [MonitorGuard(), *always_on(), ema or EMA(), *(checkpoint or Checkpoint()).callbacks()]


def always_on(besides: Iterable[Callback] = ()) -> list[Callback]:
    """Return the callbacks that need no choice, less those of which ``besides`` has one with settings of its own."""
    chosen = {type(callback) for callback in besides}
    kinds = (RunSummary, ExactResume, GracefulStop, NonFiniteGuard, LearningGuard, OutOfMemoryHelp)
    return [kind() for kind in kinds if kind not in chosen]
