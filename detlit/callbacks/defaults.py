"""The callbacks that the command line always adds, for scripts."""

from lightning.pytorch import Callback

from detlit.callbacks.checkpoints import Checkpoint
from detlit.callbacks.ema import EMA
from detlit.callbacks.summary import RunSummary

__all__ = ["default_callbacks"]


def default_callbacks(ema: EMA | None = None, checkpoint: Checkpoint | None = None) -> list[Callback]:
    """Return a moving average of the weights, best.ckpt and last.ckpt, and a summary at the end.

    Args:
        ema: the moving average, ``EMA()`` unless given.
        checkpoint: which checkpoints to keep, ``Checkpoint()`` unless given.

    For scripts: ``Trainer(callbacks=[*default_callbacks(), ...], plugins=[AtomicCheckpointIO()])`` trains with the same
    guarantees as ``detlit fit``.
    """
    return [RunSummary(), ema or EMA(), *(checkpoint or Checkpoint()).callbacks()]
