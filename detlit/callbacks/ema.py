"""Exponential moving average of the weights during training."""

import math
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn

from detlit.callbacks.effective_batch import effective_batch_size
from detlit.callbacks.second_validation import validate_again
from detlit.errors import ConfigurationError
from detlit.optim import WeightAverage

__all__ = ["EMA", "ema_decay"]

_SHARDING = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


def ema_decay(step: int, total_steps: float, decay: float, ramp: str, beta: float) -> float:
    """Return the decay of an update, which starts low so that the average leaves the initial weights soon.

    Args:
        step: optimizer steps taken so far, this one included.
        total_steps: optimizer steps of the run; read by ``"exp"`` alone.
        decay: the final decay ``D``.
        ramp: ``"threshold"``: ``min(D, (1 + step) / (10 + step))``; ``"exp"``: ``D * (1 - exp(-beta * step /
            total_steps))``; ``"constant"``: ``D``.
        beta: steepness of ``"exp"``.
    """
    if ramp == "threshold":
        return min(decay, (1 + step) / (10 + step))
    if ramp == "exp":
        return decay * (1 - math.exp(-beta * step / total_steps))
    return decay


class EMA(Callback):
    """Keep a moving average of the weights, validate with it, and save it as the checkpoint's weights.

    The average moves once per optimizer step, however many batches that accumulates. A checkpoint's ``state_dict``
    holds the averages, so whatever loads it gets them; ``current_model_state`` holds the weights as trained, from which
    a resumed run goes on exactly (the layout of Lightning's ``WeightAveraging``). After ``fit`` the module holds the
    averages. It works on any LightningModule; see :class:`~detlit.optim.WeightAverage` for what is averaged.

    Args:
        decay: the final decay; 0.9997 averages about the last 3300 steps.
        ramp: how the decay rises to it, see :func:`ema_decay`.
        beta: steepness of the ``"exp"`` ramp; 15 reaches the final decay after about 40 % of the run.
        alpha: take ``max(0, 1 - alpha * images / epochs * update_period)`` as decay instead, with the images per
            optimizer step and the epochs of the run, so that it suits any batch size and length (basecls); 1e-5 with
            1024 images, 100 epochs and a period of 32 is 0.9967. ``decay``, ``ramp`` and ``beta`` are not read then.
        update_period: optimizer steps between two updates. A decay that is not from ``alpha`` is raised to this power,
            so that it means what it does with an update in every step.
        start_epoch: epochs, counted from 0, before which the average is a copy of the weights.
        start_step: optimizer steps before which it is, likewise; the later of the two counts.
        validate: which weights ``fit`` validates with: ``"ema"``; ``"raw"``, the weights as trained (checkpoints hold
            the averages nevertheless); or ``"both"``, which takes two passes: averages are logged as ever, and weights
            as trained as ``val_raw/map`` beside ``val/map``, or as ``val_loss_raw`` beside ``val_loss``.

    Raises:
        ConfigurationError: an argument out of range; when training starts, a strategy that shards the weights,
            ``ModelCheckpoint(save_weights_only=True)``, or ``alpha`` or the ``"exp"`` ramp on a run without an end.
    """

    def __init__(
        self,
        decay: float = 0.9997,
        ramp: Literal["threshold", "exp", "constant"] = "threshold",
        beta: float = 15.0,
        alpha: float | None = None,
        update_period: int = 1,
        start_epoch: int = 0,
        start_step: int = 0,
        validate: Literal["raw", "ema", "both"] = "ema",
    ) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigurationError(f"EMA decay={decay} does not average: choose one from 0 up to, not including, 1.")
        if ramp not in ("threshold", "exp", "constant"):
            raise ConfigurationError(f"EMA ramp={ramp!r} is unknown: choose 'threshold', 'exp' or 'constant'.")
        if beta <= 0.0:
            raise ConfigurationError(f"EMA beta={beta} would never raise the decay: choose a positive one, such as 15.")
        if alpha is not None and not alpha > 0.0:
            raise ConfigurationError(f"EMA alpha={alpha} would never move the average: choose a positive one, or none.")
        if update_period < 1:
            raise ConfigurationError(f"EMA update_period={update_period} never updates: choose 1 or more steps.")
        for name, start in (("start_epoch", start_epoch), ("start_step", start_step)):
            if start < 0:
                raise ConfigurationError(f"EMA {name}={start} is before the start of training: choose 0 or more.")
        if validate not in ("raw", "ema", "both"):
            raise ConfigurationError(f"EMA validate={validate!r} is unknown: choose 'raw', 'ema' or 'both'.")
        self.decay = decay
        self.ramp = ramp
        self.beta = beta
        self.alpha = alpha
        self.update_period = update_period
        self.start_epoch = start_epoch
        self.start_step = start_step
        self.validate = validate
        self.updates = 0
        self._average: WeightAverage | None = None
        self._resumed: dict[str, torch.Tensor] | None = None
        self._total_steps = math.inf
        self._alpha_decay = 0.0
        self._last_step = 0
        self._validation_loop: Any = None

    # ------------------------------------------------------------------------------------------- start, update
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run, and refuse what would average or save something else."""
        if stage != "fit":
            return
        self.updates, self._average, self._resumed = 0, None, None
        if sum(isinstance(callback, EMA) for callback in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise ConfigurationError(
                "two EMA callbacks would each take the other's averages for the weights: keep one "
                "(default_callbacks(ema=...) in scripts, the key ema: in configs)."
            )
        _refuse_what_ignores_the_average(trainer)
        if self.validate == "both":
            self._validate_twice(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the averages of the checkpoint that is resumed, if there are any."""
        if self.alpha is not None:
            epochs = _epochs_of_run(trainer)
            images = effective_batch_size(trainer)
            self._alpha_decay = max(0.0, 1.0 - self.alpha * images / epochs * self.update_period)
        elif self.ramp == "exp":
            self._total_steps = _length_of_run(trainer)
        if self._resumed is not None:
            self._average = WeightAverage(pl_module, self._resumed)
            self._resumed = None
        self._last_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start from the weights as they are before the first step that counts: until then they are the average."""
        begins = trainer.current_epoch >= self.start_epoch and trainer.global_step >= self.start_step
        if self._average is None and begins:
            self._average = WeightAverage(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update after each optimizer step; batches that only accumulate gradients do not count."""
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        if self._average is None or trainer.global_step % self.update_period:
            return
        self.updates += 1
        self._average.update(self._decay())

    def _decay(self) -> float:
        if self.alpha is not None:
            return self._alpha_decay
        steps = self.updates * self.update_period
        decay = ema_decay(steps, self._total_steps, self.decay, self.ramp, self.beta)
        return decay**self.update_period

    # --------------------------------------------------------------------------------------------- validation
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate with the averages, once there are any."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting and self.validate != "raw" and self._average is not None and self.updates:
            self._agree_on_buffers(trainer)
            self._average.swap_in()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the weights as trained."""
        if self._average is not None:
            self._average.swap_out()

    def _validate_twice(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the validation loop begin with a pass over the weights as trained.

        First, so that a checkpoint callback finds both scores at the end of the pass that it hears of.
        """
        loop = trainer.fit_loop.epoch_loop.val_loop
        run = loop.run

        def run_twice() -> Any:
            if not trainer.sanity_checking:
                validate_again(trainer, pl_module, "raw")
            return run()

        loop.run = run_twice  # type: ignore[method-assign]
        self._validation_loop = loop

    def _validate_once(self) -> None:
        if self._validation_loop is not None:
            del self._validation_loop.run
            self._validation_loop = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the weights as trained when validation breaks or is interrupted."""
        self._validate_once()
        if self._average is not None:
            self._average.swap_out()

    # -------------------------------------------------------------------------------------------- checkpoints
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the averages as the weights, and the weights as trained beside them."""
        if self._average is None or not self.updates:
            return
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = self._average.averaged(state)
        checkpoint["current_model_state"] = self._average.raw(state)
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self.updates)}
        if rounded := self._average.higher_precision():
            checkpoint["averaging_state"]["higher_precision"] = rounded

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Resume training with the weights as trained; everything else keeps the averages."""
        if trainer.state.fn != TrainerFn.FITTING or "current_model_state" not in checkpoint:
            return
        state = checkpoint["averaging_state"]
        self.updates = int(state["n_averaged"])
        self._resumed = {**checkpoint["state_dict"], **state.get("higher_precision", {})}
        pl_module.load_state_dict(checkpoint["current_model_state"], strict=pl_module.strict_loading)

    # ---------------------------------------------------------------------------------------------------- end
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let all ranks end with the same averages."""
        self._agree_on_buffers(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the averages in the module, after the last checkpoint was saved."""
        if stage != "fit":
            return
        self._validate_once()
        if self._average is not None:
            if self.updates:
                self._average.copy_to_module()
            self._average = None

    def _agree_on_buffers(self, trainer: Trainer) -> None:
        if trainer.world_size > 1 and self._average is not None:
            self._average.broadcast_buffers()


def _refuse_what_ignores_the_average(trainer: Trainer) -> None:
    if isinstance(trainer.strategy, _SHARDING):
        raise ConfigurationError(
            f"EMA averages whole weights and {type(trainer.strategy).__name__} splits them over devices: "
            "use trainer.strategy=ddp, or turn EMA off (ema: null)."
        )
    if any(isinstance(saver, ModelCheckpoint) and saver.save_weights_only for saver in trainer.checkpoint_callbacks):
        raise ConfigurationError(
            "ModelCheckpoint(save_weights_only=True) would save the weights without EMA, because Lightning asks no "
            "callback then: leave it out, the averages are in the full checkpoint's state_dict."
        )


def _epochs_of_run(trainer: Trainer) -> int:
    """Return the epochs of the run."""
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        raise ConfigurationError(
            "EMA alpha needs to know the epochs of the run, and max_epochs=-1 has no end: set trainer.max_epochs, or "
            "choose a decay."
        )
    return max(1, trainer.max_epochs)


def _length_of_run(trainer: Trainer) -> float:
    """Return the optimizer steps of the run."""
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise ConfigurationError(
            "EMA ramp='exp' needs to know the length of the run, and max_epochs=-1 has no end: "
            "set trainer.max_epochs or trainer.max_steps, or choose ramp='threshold'."
        )
    return steps
