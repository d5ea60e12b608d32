"""The curves of a run as a picture in its folder."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from detlit.callbacks.summary import epochs_done
from detlit.errors import ConfigurationError
from detlit.reports.curves import Best, draw_curves

__all__ = ["PlotMetrics"]

_MOST_POINTS = 400
"""Points of a curve of single steps; at which neighbours are averaged."""

Points = list[tuple[float, float]]


class PlotMetrics(Callback):
    """Draw losses, scores and learning rates into ``curves.png`` of the run folder, anew after each epoch.

    The training loss is what ``training_step`` returned, read from the device when a picture is drawn; losses and
    scores of validation are those logged as ``val/loss...`` and in ``metrics``. It works on any LightningModule with
    automatic optimization. A resumed run goes on with the curves of its checkpoint. The first process draws, from its
    own training loss.

    Args:
        metrics: logged scores to draw.
        monitor: the one whose best value is marked.
        mode: ``"max"`` where more is better.
        formats: of the files: ``"png"``, ``"svg"``.
        min_seconds: least time between two pictures, so that short epochs are not slowed down; the last one of a run
            is always drawn.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("val/map", "val/map_50", "val/map_75"),
        monitor: str = "val/map",
        mode: Literal["max", "min"] = "max",
        formats: Sequence[Literal["png", "svg"]] = ("png",),
        min_seconds: float = 10.0,
    ) -> None:
        unknown = [form for form in formats if form not in ("png", "svg")]
        if unknown or not formats:
            raise ConfigurationError(f"PlotMetrics formats={list(formats)} cannot be drawn: choose of 'png' and 'svg'.")
        if mode not in ("max", "min"):
            raise ConfigurationError(f"PlotMetrics mode={mode!r} is unknown: choose 'max' or 'min'.")
        if min_seconds < 0:
            raise ConfigurationError(f"PlotMetrics min_seconds={min_seconds} is negative: choose 0 or more.")
        self.metrics = list(metrics)
        self.monitor = monitor
        self.mode = mode
        self.formats = list(formats)
        self.min_seconds = min_seconds
        self._folder: Path | None = None
        self._clear()

    def _clear(self) -> None:
        self._curves: dict[str, Points] = {}
        self._epoch_ends: list[int] = []
        self._steps_per_point = 1
        self._losses: list[tuple[int, Tensor]] = []  # of single points, on the device
        self._open: list[Tensor] = []  # losses of the point that is being filled
        self._drawn_at = -math.inf
        self._last_step = 0

    # -------------------------------------------------------------------------------------------------- collect
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder on every rank (``log_dir`` broadcasts), and forget an earlier run."""
        if stage == "fit":
            self._folder = Path(trainer.log_dir or trainer.default_root_dir)
            self._clear()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Put the loss aside, on its device, and the learning rates."""
        if not trainer.is_global_zero:
            return
        if isinstance(outputs, dict) and isinstance(outputs.get("loss"), Tensor):
            self._open.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)
        step = trainer.global_step
        if step == self._last_step:
            return
        self._last_step = step
        if step % self._steps_per_point == 0:
            self._close_point(trainer, step)

    def _close_point(self, trainer: Trainer, step: int) -> None:
        if self._open:
            self._losses.append((step, torch.stack(self._open).mean()))
            self._open = []
        for name, rate in _learning_rates(trainer).items():
            self._curves.setdefault(f"lr/{name}", []).append((step, rate))
        if len(self._losses) + len(self._curves.get("train/loss", [])) >= _MOST_POINTS:
            self._read_losses()
            self._steps_per_point *= 2
            for name, curve in self._curves.items():
                if name == "train/loss" or name.startswith("lr/"):
                    self._curves[name] = _halved(curve, of_means=name == "train/loss")

    def _read_losses(self) -> None:
        """Read the losses since the last picture at once: the only time the device is waited for."""
        if self._losses:
            values = torch.stack([loss for _, loss in self._losses]).float().tolist()
            points = [(step, value) for (step, _), value in zip(self._losses, values, strict=True)]
            self._curves.setdefault("train/loss", []).extend(points)
            self._losses = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down what validation logged."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        for name, value in trainer.callback_metrics.items():
            if name in self.metrics or name == self.monitor or name.startswith("val/loss"):
                curve = self._curves.setdefault(name, [])
                if not curve or curve[-1][0] < trainer.global_step:
                    curve.append((trainer.global_step, float(value)))
        self._draw(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, also without validation."""
        if trainer.is_global_zero:
            self._epoch_ends.append(trainer.global_step)
            self._draw(trainer)

    # ----------------------------------------------------------------------------------------------------- draw
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the whole run."""
        self._draw(trainer, last=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw what there is of a run that was interrupted; a device that failed has no more to say."""
        if isinstance(exception, (KeyboardInterrupt, SystemExit)):
            self._draw(trainer, last=True)

    def _draw(self, trainer: Trainer, last: bool = False) -> None:
        soon = time.monotonic() - self._drawn_at < self.min_seconds
        if self._folder is None or not trainer.is_global_zero or trainer.fast_dev_run or (soon and not last):  # type: ignore[attr-defined]
            return
        self._read_losses()
        if not self._curves:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        best = self.best()
        done = epochs_done(len(self._epoch_ends), trainer.max_epochs)
        title = f"{self._folder.name}: {done}, step {trainer.global_step}"
        if best is not None:
            title += f" · best {best.name} {best.value:.3g} at step {best.step:.0f}"
        for form in self.formats:
            draw_curves(self._panels(), self._folder / f"curves.{form}", title, best, self._epoch_ends)
        self._drawn_at = time.monotonic()

    def _panels(self) -> dict[str, dict[str, Points]]:
        losses = ["train/loss", *sorted(name for name in self._curves if name.startswith("val/loss"))]
        scores = [*self.metrics, *([] if self.monitor in self.metrics else [self.monitor])]
        rates = {name[3:]: curve for name, curve in self._curves.items() if name.startswith("lr/")}
        return {
            "loss": {name: self._curves.get(name, []) for name in losses},
            "score": {name: _measured(self._curves.get(name, [])) for name in scores if name not in losses},
            "learning rate": _different(rates),
        }

    def best(self) -> Best | None:
        """Return the best value of the monitored metric so far."""
        points = _measured(self._curves.get(self.monitor, []))
        if not points:
            return None
        choose = max if self.mode == "max" else min
        step, value = choose(points, key=lambda point: point[1])
        return Best(self.monitor, step, value)

    # ------------------------------------------------------------------------------------------------- resuming
    def state_dict(self) -> dict[str, Any]:
        """Return the curves so far, as plain numbers."""
        self._read_losses()
        curves = {name: [list(point) for point in curve] for name, curve in self._curves.items()}
        return {"curves": curves, "epoch_ends": self._epoch_ends, "steps_per_point": self._steps_per_point}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curves of a checkpoint."""
        self._curves = {name: [(step, value) for step, value in curve] for name, curve in state_dict["curves"].items()}
        self._epoch_ends = list(state_dict["epoch_ends"])
        self._steps_per_point = state_dict["steps_per_point"]


def _learning_rates(trainer: Trainer) -> dict[str, float]:
    """Return the present learning rate of each parameter group, by its name or number."""
    rates = {}
    for position, optimizer in enumerate(trainer.optimizers):
        for number, group in enumerate(optimizer.param_groups):
            name = str(group.get("name", f"group {number}"))
            rates[name if len(trainer.optimizers) == 1 else f"{position} {name}"] = float(group["lr"])
    return rates


def _halved(curve: Points, of_means: bool) -> Points:
    """Return the means of neighbouring points at the second's step, or every second point."""
    pairs = zip(curve[::2], curve[1::2])  # noqa: B905 - a last point without a partner is left out
    return [(step, (first + second) / 2 if of_means else second) for (_, first), (step, second) in pairs]


def _measured(points: Points) -> Points:
    """Leave out what was not measured: NaN, and the -1 of COCO for data without objects."""
    return [(step, value) for step, value in points if math.isfinite(value) and value != -1]


def _different(rates: dict[str, Points]) -> dict[str, Points]:
    """Return each curve once, under the names of all groups that have it."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, curve in rates.items():
        names.setdefault(tuple(curve), []).append(name)
    if len(names) == 1:
        return {"all parameters": list(next(iter(names)))}
    return {", ".join(group[:3]) + (", ..." if len(group) > 3 else ""): list(curve) for curve, group in names.items()}
