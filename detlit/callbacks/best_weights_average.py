"""The mean of the best weights of a run."""

import contextlib
import math
import re
import shutil
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
    resumed run goes on with them; a training that was interrupted leaves them there. A run that is resumed into another
    folder copies those beside the checkpoint it starts from, and leaves them to their run. A score that is not finite
    counts as none. Where processes disagree, about a score or a file, the first decides.

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
        self._snapshots: list[tuple[float, str]] = []  # scores and file names, best first
        self._superseded: list[tuple[int, str]] = []  # with the step of the validation that did so

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the snapshots of the resumed run that are still there."""
        found = trainer.strategy.broadcast(self._found(trainer) if trainer.is_global_zero else [])
        _warn_of([name for _, name in self._snapshots if name not in found])
        present = [(score, name) for score, name in self._snapshots if name in found]
        self._snapshots = present[: self.k]  # the run may go on with a smaller one
        self._superseded += [(0, name) for _, name in present[self.k :]]

    def _found(self, trainer: Trainer) -> list[str]:
        """Return the names of the snapshots that are there, after copying those of a run with another folder."""
        names, folder = [name for _, name in self._snapshots], self._folder(trainer)
        present = [name for name in names if (folder / "average" / name).exists()]
        own = [folder, trainer.default_root_dir, *(saver.dirpath for saver in _savers(trainer) if saver.dirpath)]
        start = folder if trainer.ckpt_path is None else Path(trainer.ckpt_path).parent
        if start.resolve() in [Path(each).resolve() for each in own]:
            return present
        copied = [name for name in names if _copy(start / "average" / name, folder / "average" / name)]
        return copied if self.dirpath is None else [*copied, *present]  # by itself the folder may be left from any run

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are among the best."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._remove_superseded(trainer)
        score = trainer.strategy.broadcast(self._score(trainer, self.monitor))
        if not math.isfinite(score) or not self._is_wanted(score):
            return
        path = self._folder(trainer) / "average" / f"{self._stem}-step-{trainer.global_step}.ckpt"
        state = _checkpoint(trainer)["state_dict"]
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({name: value.detach().cpu() for name, value in state.items()}, path)
        ranked = sorted([*self._snapshots, (score, path.name)], key=lambda item: item[0], reverse=self.mode == "max")
        self._snapshots = ranked[: self.k]
        self._superseded += [(trainer.global_step, name) for _, name in ranked[self.k :]]

    @property
    def _stem(self) -> str:
        return self.monitor.replace("/", "_")

    def _remove_superseded(self, trainer: Trainer) -> None:
        """Delete the snapshots that no ``last.ckpt`` names any more, as it was written since."""
        last = [saver for saver in _savers(trainer) if saver.monitor is None and saver.best_model_path]
        saved = min((saver._last_global_step_saved for saver in last), default=trainer.global_step + 1)
        self._remove(trainer, [name for step, name in self._superseded if step < saved])
        self._superseded = [(step, name) for step, name in self._superseded if step >= saved]

    def _remove(self, trainer: Trainer, names: list[str]) -> None:
        if trainer.is_global_zero and names:
            folder = self._folder(trainer) / "average"
            for name in names:
                (folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it is not empty, or not there
                folder.rmdir()

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
        mean = trainer.strategy.broadcast(self._mean(trainer) if trainer.is_global_zero else {})
        if mean:
            self._validate_and_save(trainer, pl_module, mean)
        else:
            rank_zero_warn("There is no average.ckpt, because the snapshots it is made of are gone.")
        self._remove(trainer, [name for _, name in [*self._snapshots, *self._superseded]])

    def _mean(self, trainer: Trainer) -> dict[str, Tensor]:
        """Return the mean of the snapshots that are still there, empty if none is."""
        paths = [self._folder(trainer) / "average" / name for _, name in self._snapshots]
        present = [path for path in paths if path.exists()]
        if not present:
            return {}
        _warn_of([path.name for path in paths if path not in present])
        return mean_of_files(present)

    def _validate_and_save(self, trainer: Trainer, pl_module: LightningModule, mean: dict[str, Tensor]) -> None:
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

    # ------------------------------------------------------------------------------------------------ checkpoints
    def state_dict(self) -> dict[str, Any]:
        """Return the scores and file names of the snapshots, and the names of those that are still to be deleted."""
        return {
            "snapshots": [[score, name] for score, name in self._snapshots],
            "superseded": [[step, name] for step, name in self._superseded],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the names of snapshots; a checkpoint does not say where they are, and names no other file."""
        stored, superseded = state_dict["snapshots"], state_dict.get("superseded", [])
        self._snapshots = [(score, name) for score, name in stored if self._is_snapshot(name)]
        self._superseded = [(step, name) for step, name in superseded if self._is_snapshot(name)]
        if ignored := [str(name) for _, name in [*stored, *superseded] if not self._is_snapshot(name)]:
            rank_zero_warn(f"The average of the best weights ignores {', '.join(ignored)}: no names of its snapshots.")

    def _is_snapshot(self, name: Any) -> bool:
        return isinstance(name, str) and re.fullmatch(rf"{re.escape(self._stem)}-step-[0-9]+\.ckpt", name) is not None


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


def _copy(source: Path, target: Path) -> bool:
    """Copy a file, so that the target is whole whenever it exists, and tell whether the source was there."""
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    try:
        shutil.copyfile(source, partial)
    except FileNotFoundError:  # its run has just ended
        return False
    partial.replace(target)
    return True


def _warn_of(missing: list[str]) -> None:
    if missing:
        rank_zero_warn(f"The average of the best weights goes on without {', '.join(missing)}, not there any more.")
