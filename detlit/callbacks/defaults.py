"""The callbacks that the command line always adds, for scripts."""

from lightning.pytorch import Callback

from detlit.callbacks.checkpoints import Checkpoint
from detlit.callbacks.ema import EMA
from detlit.callbacks.summary import RunSummary

__all__ = ["default_callbacks"]


def default_callbacks() -> list[Callback]:
    """Return a moving average of the weights, best.ckpt and last.ckpt, and a summary at the end.

    For scripts: ``Trainer(callbacks=[*default_callbacks(), ...], plugins=[AtomicCheckpointIO()])`` trains with the same
    guarantees as ``detlit fit``.
    """
    return [RunSummary(), EMA(), *Checkpoint().callbacks()]
