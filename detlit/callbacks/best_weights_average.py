"""The mean of the best weights of a run."""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from detlit.callbacks.second_validation import renamed, validate_again
from detlit.errors import ConfigurationError

__all__ = ["BestWeightsAverage"]

_OF_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "callbacks", "current_model_state", "averaging_state")
"""Entries of a checkpoint that belong to the weights as trained, or to going on with training."""


class BestWeightsAverage(Callback):
    """Average the weights of the best validations of a run, validate the mean at the end, and save it.

    Weights of one run that are good usually lie in one basin, whose middle is often better than each of them
    (https://arxiv.org/abs/1803.05407, https://arxiv.org/abs/2203.05482). The weights are those that a checkpoint has:
    with :class:`~detlit.callbacks.EMA` its averages. The mean is validated when training ends, and logged as
    ``val_average/map`` beside ``val/map``; ``average.ckpt``, beside the best checkpoint, holds it with all that
    detecting and testing need, and nothing of the optimizer. The module keeps the weights it has. It works on any
    LightningModule.

    Until then the snapshots are files in ``average`` beside the checkpoints, so that memory holds none of them, and a
    resumed run goes on with them; a training that was interrupted leaves them there. A score that is not finite counts
    as none.

    Args:
        monitor: the metric that decides on the best, as logged.
        mode: ``"max"`` where more is better.
        k: snapshots to average.
        dirpath: folder of ``average.ckpt``; ``None`` is that of the best checkpoint, or ``checkpoints`` in the
            Trainer's folder if none is kept.

    Attributes:
        average_path: where the mean was saved.
        average_score: the metric of the mean.

    Raises:
        ConfigurationError: a mode or number that is not possible; when validation ends, a metric that is not logged.
    """

    def __init__(
        self,
        monitor: str = "val/map",
        mode: Literal["max", "min"] = "max",
        k: int = 10,
        dirpath: str | Path | None = None,
    ) -> None:
        if mode not in ("max", "min"):
            raise ConfigurationError(f"BestWeightsAverage mode={mode!r} is unknown: choose 'max' or 'min'.")
        if k < 1:
            raise ConfigurationError(f"BestWeightsAverage k={k} averages nothing: choose 1 or more.")
        self.monitor = monitor
        self.mode = mode
        self.k = k
        self.dirpath = dirpath
        self.average_path: Path | None = None
        self.average_score: float | None = None
        self._snapshots: list[tuple[float, Path]] = []
        self._superseded: list[tuple[int, Path]] = []  # with the step of the validation that did so

    @property
    def state_key(self) -> str:
        """Two averages of different metrics are two states."""
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    # -------------------------------------------------------------------------------------------------- snapshots
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        if stage == "fit":
            self._snapshots, self._superseded = [], []
            self.average_path, self.average_score = None, None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are among the best."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._remove_superseded(trainer)
        score = self._score(trainer, self.monitor)
        if not math.isfinite(score) or not self._is_wanted(score):
            return
        path = self._folder(trainer) / "average" / f"{self.monitor.replace('/', '_')}-step-{trainer.global_step}.ckpt"
        state = _checkpoint(trainer)["state_dict"]
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({name: value.detach().cpu() for name, value in state.items()}, path)
        ranked = sorted([*self._snapshots, (score, path)], key=lambda item: item[0], reverse=self.mode == "max")
        self._snapshots = ranked[: self.k]
        self._superseded += [(trainer.global_step, path) for _, path in ranked[self.k :]]

    def _remove_superseded(self, trainer: Trainer) -> None:
        """Delete the snapshots that no ``last.ckpt`` names any more, as it was written since."""
        last = [saver for saver in _savers(trainer) if saver.monitor is None and saver.best_model_path]
        saved = min((saver._last_global_step_saved for saver in last), default=trainer.global_step + 1)
        _remove(trainer, [path for step, path in self._superseded if step < saved])
        self._superseded = [(step, path) for step, path in self._superseded if step >= saved]

    def _is_wanted(self, score: float) -> bool:
        if len(self._snapshots) < self.k:
            return True
        worst, _ = self._snapshots[-1]
        return score > worst if self.mode == "max" else score < worst

    def _score(self, trainer: Trainer, name: str) -> float:
        logged = trainer.callback_metrics
        if name not in logged:
            raise ConfigurationError(
                f"BestWeightsAverage monitor={name} is not logged: choose one of {', '.join(sorted(logged))}."
            )
        return logged[name].item()

    def _folder(self, trainer: Trainer) -> Path:
        if self.dirpath is not None:
            return Path(self.dirpath)
        savers = sorted(_savers(trainer), key=lambda saver: saver.monitor is None)
        folders = [saver.dirpath for saver in savers if saver.dirpath is not None]
        return Path(folders[0] if folders else Path(trainer.default_root_dir) / "checkpoints")

    # -------------------------------------------------------------------------------------------------------- end
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate and save the mean."""
        if not self._snapshots:
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                rank_zero_warn(
                    f"There is no average.ckpt, because {self.monitor} was never measured: validate more often "
                    "(trainer.val_check_interval) or train longer."
                )
            return
        paths = [path for _, path in self._snapshots]
        mean = trainer.strategy.broadcast(mean_of_files(paths) if trainer.is_global_zero else {})
        own = {name: value.clone() for name, value in pl_module.state_dict().items()}
        own_threshold = getattr(pl_module, "score_threshold", None)  # validation chooses one for the mean
        pl_module.load_state_dict(mean, strict=pl_module.strict_loading)
        try:
            validate_again(trainer, pl_module, "average")
            validated = pl_module.state_dict()  # PreciseBatchNorm may have written to it
            mean = {name: validated[name].cpu().clone() if name in validated else mean[name] for name in mean}
        finally:
            pl_module.load_state_dict(own, strict=pl_module.strict_loading)
        self.average_score = self._score(trainer, renamed(self.monitor, "average"))
        checkpoint = {key: value for key, value in _checkpoint(trainer).items() if key not in _OF_TRAINING}
        self.average_path = self._folder(trainer) / "average.ckpt"
        trainer.strategy.save_checkpoint({**checkpoint, "state_dict": mean}, self.average_path)
        if hasattr(pl_module, "score_threshold"):
            pl_module.score_threshold = own_threshold  # type: ignore[assignment]
        _remove(trainer, [*paths, *(path for _, path in self._superseded)])

    # ------------------------------------------------------------------------------------------------ checkpoints
    def state_dict(self) -> dict[str, Any]:
        """Return the scores and files of the snapshots, and the files that are still to be deleted."""
        return {
            "snapshots": [[score, str(path)] for score, path in self._snapshots],
            "superseded": [[step, str(path)] for step, path in self._superseded],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the snapshots that are still there."""
        stored = [(score, Path(path)) for score, path in state_dict["snapshots"]]
        present = [(score, path) for score, path in stored if path.exists()]
        self._snapshots = present[: self.k]  # the run may go on with a smaller one
        superseded = [(step, Path(path)) for step, path in state_dict.get("superseded", [])]
        self._superseded = [*superseded, *((0, path) for _, path in present[self.k :])]
        if missing := [str(path) for _, path in stored if not path.exists()]:
            rank_zero_warn(f"The average of the best weights goes on without {', '.join(missing)}, not there any more.")


def mean_of_files(paths: list[Path]) -> dict[str, Tensor]:
    """Return the mean of state dicts in files, best first; of integers, such as counters, those of the first.

    Sums are float64, and one state is in memory at a time.
    """
    first: dict[str, Tensor] = torch.load(paths[0], weights_only=True)
    sums = {name: value.double() for name, value in first.items() if value.is_floating_point()}
    for path in paths[1:]:
        state = torch.load(path, weights_only=True)
        for name, total in sums.items():
            total += state[name]
    return {name: (sums[name] / len(paths)).to(value.dtype) if name in sums else value for name, value in first.items()}


def _checkpoint(trainer: Trainer) -> dict[str, Any]:
    """Return what ``trainer.save_checkpoint`` would write, with what callbacks make of the weights."""
    checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint()
    return checkpoint


def _savers(trainer: Trainer) -> list[ModelCheckpoint]:
    return [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]


def _remove(trainer: Trainer, paths: list[Path]) -> None:
    if trainer.is_global_zero:
        for path in paths:
            path.unlink(missing_ok=True)
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
