"""What Lightning leaves out of resuming: random generators, and the position in the epoch."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, distributed

__all__ = ["ExactResume"]

_KEY = "random_state"


class ExactResume(Callback):
    """Resume so that the run becomes, bit for bit on a CPU, what it would have been without the interruption.

    Weights, optimizer and schedule are Lightning's part. Added here are

    * the states of torch's, numpy's and Python's global random generators, of each rank; a run resumed on another
      number of ranks starts from fresh ones. detlit's data pipeline draws from (seed, epoch, image) instead, but
      dropout, a plain shuffling DataLoader and other libraries' transforms draw from these;
    * the position in the epoch of a loader that has a state. Lightning forgets it where the training data were loaded
      before the checkpoint, and any schedule that asks for ``trainer.estimated_stepping_batches`` loads them.

    A checkpoint saved within a validation holds the generators from before it, because the validation is repeated. It
    works on any LightningModule; a loader without a state, such as a plain DataLoader, resumes exactly between epochs.

    One thing resumes inexactly: ``ReduceLROnPlateau`` never hears of the score of the epoch whose checkpoint is
    resumed, as Lightning tells it after writing that. Schedules that follow from the step alone have no such gap.
    """

    def __init__(self) -> None:
        self._before_validation: dict[str, Any] = {}
        self._validating = False
        self._resumed: dict[str, Any] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the state: a validation may follow, and its loader draws before any hook of it is called."""
        self._before_validation = _states(pl_module.device)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the kept state from here on."""
        self._validating = bool(self._before_validation)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the present state from here on."""
        self._validating = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the states of all ranks; a collective call."""
        own = self._before_validation if self._validating else _states(pl_module.device)
        states: list[Any] = [own] * trainer.world_size
        if trainer.world_size > 1:
            distributed.all_gather_object(states, own)
        checkpoint[_KEY] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from the state of this rank."""
        states = checkpoint.get(_KEY, [])
        if trainer.state.fn == TrainerFn.FITTING and len(states) == trainer.world_size:
            self._resumed = states[trainer.global_rank]
            _restore(self._resumed, trainer.strategy.root_device)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the training loader go on where the checkpoint was taken, if Lightning has not seen to it."""
        loop = trainer.fit_loop
        if loop.restarting and loop._combined_loader_states_to_load and loop._data_fetcher is not None:
            loop._load_combined_loader_states()
            iter(loop._data_fetcher)
        if not loop.restarting or loop.epoch_loop.batch_progress.is_last_batch:
            self._resumed = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Within an epoch, undo what starting the loader drew: in the whole run it had started before."""
        if self._resumed:
            _restore(self._resumed, trainer.strategy.root_device)
            self._resumed = {}


def _states(device: torch.device) -> dict[str, Any]:
    """Return the states as plain data and tensors, which load with ``weights_only=True``."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(_bytes(state["torch"]))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_bytes(state["cuda"]), device)


def _bytes(state: Tensor) -> Tensor:
    return state.cpu().to(torch.uint8)
