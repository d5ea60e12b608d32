"""The callbacks that the command line always adds, for scripts."""

from lightning.pytorch import Callback

from detlit.callbacks.checkpoints import Checkpoint
from detlit.callbacks.ema import EMA
from detlit.callbacks.exact_resume import ExactResume
from detlit.callbacks.graceful_stop import GracefulStop
from detlit.callbacks.summary import RunSummary

__all__ = ["default_callbacks"]


def default_callbacks(ema: EMA | None = None, checkpoint: Checkpoint | None = None) -> list[Callback]:
    """Return what makes a run whole: averaged weights, checkpoints, stopping and resuming exactly, a summary.

    Args:
        ema: the moving average, ``EMA()`` unless given.
        checkpoint: which checkpoints to keep, ``Checkpoint()`` unless given.

    For scripts: ``Trainer(callbacks=[*default_callbacks(), ...], plugins=[AtomicCheckpointIO()])`` trains with the same
    guarantees as ``detlit fit``.
    """
    return [
        RunSummary(),
        ema or EMA(),
        ExactResume(),
        GracefulStop(),
        *(checkpoint or Checkpoint()).callbacks(),
    ]
