"""Stop at the next optimizer step, with a whole checkpoint, when asked from outside."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from detlit.callbacks.checkpoints import LastCheckpoint
from detlit.errors import ConfigurationError

__all__ = ["GracefulStop", "TrainingStopped"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOP_FILE = 1
_VALIDATION = "epoch_loop.val_loop.batch_progress"


class TrainingStopped(SystemExit):
    """Training was stopped from outside: the process exits with ``code``, unless a script catches it.

    ``code`` is 143 after SIGTERM, 130 after SIGINT (Ctrl-C), and 0 after a stop file; on ranks other than 0 it is
    always 0, because Lightning kills every process as soon as one of its children ends with another code.
    """


class GracefulStop(Callback):
    """On SIGTERM, Ctrl-C or a stop file finish the optimizer step, write ``last.ckpt``, and leave.

    A run resumed from that checkpoint goes on as if nothing had happened. One stopped while it validates repeats that
    validation. A second Ctrl-C leaves at once, with the checkpoint written before. Lightning alone exits with status 0
    on SIGTERM, saves nothing, and broadcasts inside the signal handler, where another collective may be running.

    The checkpoint is that of :class:`~detlit.callbacks.checkpoints.LastCheckpoint`; without one it is ``last.ckpt`` in
    ``trainer.default_root_dir``. It works on any LightningModule with automatic optimization.

    Args:
        stop_file: a file whose appearance stops the run, and which is then deleted; ``None`` is ``stop`` in the folder
            of the logs.
        agree_every_n_steps: with several processes, after how many steps they tell each other to stop: one reduction
            of one number, the only time this callback waits for a device. A single process stops at the next step.
    """

    def __init__(self, stop_file: str | Path | None = None, agree_every_n_steps: int = 10) -> None:
        if agree_every_n_steps < 1:
            raise ConfigurationError(
                f"agree_every_n_steps={agree_every_n_steps} would never stop: set it to 1 or more."
            )
        self.stop_file = stop_file
        self.agree_every_n_steps = agree_every_n_steps
        self._file: Path | None = None
        self._reason = 0  # a signal's number or _STOP_FILE; the largest wins where ranks differ
        self._stopping = False
        self._previous: dict[signal.Signals, Any] = {}
        self._last_step = 0

    # ------------------------------------------------------------------------------------------------- signals
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Come after all other callbacks, so that each has finished the step that is saved."""
        trainer.callbacks = [other for other in trainer.callbacks if other is not self] + [self]  # type: ignore[attr-defined]

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen from the first batch on; Lightning has put its handlers in place by now."""
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, and find the stop file's folder on every rank (``log_dir`` broadcasts)."""
        self._listen(trainer)
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        self._file = folder / "stop" if self.stop_file is None else Path(self.stop_file)
        self._last_step = trainer.global_step

    def _listen(self, trainer: Trainer) -> None:
        if self._previous or threading.current_thread() is not threading.main_thread():
            return
        self._reason, self._stopping = 0, False
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._reason and number == signal.SIGINT:
            raise TrainingStopped(130)
        self._reason = number
        again = "; press Ctrl-C again to leave at once" if number == signal.SIGINT else ""
        rank_zero_info(f"{signal.Signals(number).name}: stopping after this step{again}.")

    def _silence(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._silence()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back, before Lightning does."""
        self._silence()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the signals where training never started: Lightning has given them back."""
        self._previous = {}

    # ---------------------------------------------------------------------------------------------------- stop
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after an optimizer step; gradients that have only accumulated are in no checkpoint.

        After the last batch of an epoch the stop waits for what follows: validation, or the next epoch's first step.
        """
        stepped, self._last_step = trainer.global_step != self._last_step, trainer.global_step
        if stepped and self._asked(trainer, trainer.global_step):
            if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
                return
            self._stop(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave between epochs, if the checkpoint of the epoch before has just been written."""
        last = _last_checkpoint(trainer)
        if last is not None and last.is_up_to_date(trainer) and self._asked(trainer, 0):
            self._leave(trainer, _where(trainer, last.best_model_path))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop within a validation, which the resumed run repeats from its first batch."""
        if trainer.state.fn != TrainerFn.FITTING or not self._asked(trainer, batch_idx):
            return
        if trainer.sanity_checking:
            self._leave(trainer, "before the first step")
        self._stop(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a checkpoint that is saved within a validation say that no batch was validated yet."""
        if self._stopping and trainer.validating:
            progress = checkpoint["loops"]["fit_loop"][_VALIDATION]
            done = progress["total"]["completed"]
            progress["total"] = {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}
            progress["current"] = dict.fromkeys(progress["current"], 0)

    def _asked(self, trainer: Trainer, count: int) -> bool:
        """Tell whether to stop; with several processes the same on all of them, now and then."""
        if trainer.world_size > 1 and count % self.agree_every_n_steps:
            return False
        if self._reason == 0 and trainer.is_global_zero and self._file is not None and self._file.exists():
            self._reason = _STOP_FILE
        if trainer.world_size > 1:
            reason = torch.tensor(self._reason, device=trainer.strategy.root_device)
            self._reason = int(trainer.strategy.reduce(reason, reduce_op="max"))
        return self._reason != 0

    def _stop(self, trainer: Trainer) -> NoReturn:
        self._stopping = True
        last = _last_checkpoint(trainer)
        path = str(Path(trainer.default_root_dir) / "last.ckpt") if last is None else last.save_now(trainer)
        if last is None:
            trainer.save_checkpoint(path)
        self._leave(trainer, _where(trainer, path))

    def _leave(self, trainer: Trainer, where: str) -> NoReturn:
        stop_file = self._reason == _STOP_FILE
        by = f"the file {self._file}" if stop_file else signal.Signals(self._reason).name
        rank_zero_info(f"Stopped by {by} {where}.")
        if not trainer.is_global_zero:
            raise TrainingStopped(0)
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        forked = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)  # which waits for results after a 0
        raise TrainingStopped(int(forked) if stop_file else 128 + self._reason)


def _last_checkpoint(trainer: Trainer) -> LastCheckpoint | None:
    return next((saver for saver in trainer.checkpoint_callbacks if isinstance(saver, LastCheckpoint)), None)


def _where(trainer: Trainer, path: str) -> str:
    return f"at step {trainer.global_step}, go on with --ckpt_path {path}"
