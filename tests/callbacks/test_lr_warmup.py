import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.optim import lr_scheduler

from detlit.callbacks.lr_warmup import LRWarmup
from detlit.errors import ConfigurationError
from detlit.optim import WarmupCosine, parameter_groups
from tests.callbacks.tiny import TinyModule, assert_same, quiet_trainer, weights

W, STEPS = 5, 24  # of the warm-up; of three epochs


class RecordingSGD(torch.optim.SGD):
    """Notes what each step is done with; its base has been used before, so that the hooks of a step run twice."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
        super().__init__(*args, **kwargs)
        self.rates: list[list[float]] = []
        self.momenta: list[float] = []

    def step(self, closure: Any = None) -> Any:
        self.rates.append([group["lr"] for group in self.param_groups])
        self.momenta.append(self.param_groups[0]["momentum"])
        return super().step(closure)


class Scheduled(TinyModule):
    """Three parameter groups, two of them with rates of their own, and a scheduler."""

    def __init__(self, scheduler: Callable[..., Any] | None = None, interval: str = "step") -> None:
        super().__init__()
        self.scheduler, self.interval = scheduler, interval
        self.optimizer = RecordingSGD(parameter_groups(self, True, {"network.3": 0.01}), lr=0.02, momentum=0.9)

    def configure_optimizers(self) -> Any:
        if self.scheduler is None:
            return self.optimizer
        config = {"scheduler": self.scheduler(self.optimizer), "interval": self.interval, "monitor": "train/loss"}
        return {"optimizer": self.optimizer, "lr_scheduler": config}


def fit(folder: Path, module: Scheduled, warmup: LRWarmup | None, **arguments: Any) -> list[list[float]]:
    """Train three epochs and return the rates of each step."""
    callbacks = [*([warmup] if warmup else []), *arguments.pop("callbacks", [])]
    quiet_trainer(
        folder, callbacks=callbacks, max_epochs=3, limit_val_batches=0, enable_checkpointing=False, **arguments
    ).fit(module)
    return module.optimizer.rates


SCHEDULERS = {
    "none": (None, "step"),
    "cosine": (functools.partial(lr_scheduler.CosineAnnealingLR, T_max=STEPS), "step"),
    "step": (functools.partial(lr_scheduler.StepLR, step_size=1), "epoch"),
    "plateau": (functools.partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=10.0), "epoch"),
    "lambda": (functools.partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 0.9**step), "step"),
    "detlit": (functools.partial(WarmupCosine, total_steps=STEPS, warmup_steps=0), "step"),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_warmup_leads_to_the_schedule_and_leaves_it_as_it_is(tmp_path: Path, name: str) -> None:
    scheduled = fit(tmp_path, Scheduled(*SCHEDULERS[name]), None)
    applied = fit(tmp_path, Scheduled(*SCHEDULERS[name]), LRWarmup(W))
    assert len(applied) == STEPS
    assert applied[W:] == scheduled[W:]
    for step in range(W):
        assert applied[step] == pytest.approx([rate * (step + 1) / (W + 1) for rate in scheduled[step]], rel=1e-12)


def test_biases_may_start_high_and_momentum_low(tmp_path: Path) -> None:
    module = Scheduled()
    rates = fit(tmp_path, module, LRWarmup(3, start_factor=0.2, bias_lr=0.1, momentum=0.5))
    names = [group["name"] for group in module.optimizer.param_groups]
    assert names == ["weight", "norm", "bias", "network.3/weight", "network.3/bias"]
    for step, part in enumerate([0.25, 0.5, 0.75, 1.0, 1.0]):
        others, bias, other_bias = 0.2 + 0.8 * part, 0.1 + (0.02 - 0.1) * part, 0.1 + (0.01 - 0.1) * part
        assert rates[step] == pytest.approx([0.02 * others, 0.02 * others, bias, 0.01 * others, other_bias])
    assert module.optimizer.momenta[:5] == pytest.approx([0.6, 0.7, 0.8, 0.9, 0.9])
    assert [group["lr"] for group in module.optimizer.param_groups] == [0.02, 0.02, 0.02, 0.01, 0.01]


def test_the_first_beta_is_a_momentum(tmp_path: Path) -> None:
    seen = []

    class RecordingAdam(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            seen.append(self.param_groups[0]["betas"])
            return super().step(closure)

    class Adam(TinyModule):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return RecordingAdam(self.parameters(), lr=0.01)

    quiet_trainer(tmp_path, callbacks=[LRWarmup(1, momentum=0.5)], enable_checkpointing=False).fit(Adam())
    assert seen[:3] == [pytest.approx((0.7, 0.999)), (0.9, 0.999), (0.9, 0.999)]


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 12), (4, 3)])
def test_epochs_are_counted_in_optimizer_steps(tmp_path: Path, accumulate: int, steps: int) -> None:
    rates = fit(tmp_path, Scheduled(), LRWarmup(epochs=1.5), accumulate_grad_batches=accumulate)
    assert [rate[0] for rate in rates].index(0.02) == steps


def test_rates_are_scaled_with_the_effective_batch_in_the_whole_run(tmp_path: Path) -> None:
    module = Scheduled(*SCHEDULERS["cosine"])
    scheduled = fit(tmp_path, Scheduled(*SCHEDULERS["cosine"]), None, accumulate_grad_batches=4)
    scaled = fit(tmp_path, module, LRWarmup(0, reference_batch_size=16), accumulate_grad_batches=4)
    assert scaled == [pytest.approx([rate / 2 for rate in rates]) for rates in scheduled]  # 4 batches of 2 images


def test_accumulation_rises_in_whole_windows(tmp_path: Path) -> None:
    windows: list[int] = []
    divisors: list[int] = []

    class Count(Callback):
        batches = step = 0

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            self.batches += 1
            if trainer.global_step > self.step:
                windows.append(self.batches)
                divisors.append(trainer.accumulate_grad_batches)
                self.batches, self.step = 0, trainer.global_step

    counter, module = Count(), Scheduled()
    trainer = quiet_trainer(
        tmp_path,
        callbacks=[LRWarmup(5, accumulate=True), counter],
        max_epochs=4,
        accumulate_grad_batches=4,
        limit_val_batches=0,
        enable_checkpointing=False,
    )
    trainer.fit(module)
    assert windows == [1, 1, 2, 2, 2, *[4] * 6]
    assert divisors == [1, 1, 2, 2, 3, *[4] * 6]  # what the loss was divided by; the end of the epoch cuts one short
    assert trainer.accumulate_grad_batches == 4


def test_what_is_applied_is_logged(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    rates = fit(tmp_path, Scheduled(), LRWarmup(W), logger=logger, log_every_n_steps=1)
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    header, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    column = header.index("lr_applied/network.3/weight")
    assert [float(row[column]) for row in rows if row[column]] == pytest.approx([rate[3] for rate in rates])


@pytest.mark.parametrize("stop", [1, 7])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_resuming_within_and_after_the_warmup_is_exact(tmp_path: Path, stop: int, accumulate: int) -> None:
    def run(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None) -> dict[str, Tensor]:
        module = Scheduled(*SCHEDULERS["cosine"])
        warmup = LRWarmup(6, bias_lr=0.1, momentum=0.5, accumulate=accumulate > 1)
        quiet_trainer(
            folder,
            callbacks=[warmup, *callbacks],
            max_epochs=6,
            limit_train_batches=4,
            limit_val_batches=0,
            enable_checkpointing=False,
            accumulate_grad_batches=accumulate,
        ).fit(module, ckpt_path=ckpt_path)
        return weights(module)

    class SaveAndStop(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.global_step >= stop:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")
                raise KeyboardInterrupt

    straight = run(tmp_path)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run(tmp_path, SaveAndStop())
    assert (torch.load(tmp_path / "stopped.ckpt", weights_only=True)["global_step"] < 6) == (stop == 1)
    assert_same(run(tmp_path, ckpt_path=tmp_path / "stopped.ckpt"), straight)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_step_leaves_the_scheduled_rates(tmp_path: Path, exception: type[BaseException]) -> None:
    module = Scheduled()

    def fail(*_: Any) -> Tensor:
        raise exception

    module.training_step = fail  # type: ignore[method-assign]
    with pytest.raises((SystemExit, exception)):
        fit(tmp_path, module, LRWarmup(3, bias_lr=0.1, momentum=0.5))
    assert [group["lr"] for group in module.optimizer.param_groups] == [0.02, 0.02, 0.02, 0.01, 0.01]
    assert module.optimizer.param_groups[0]["momentum"] == 0.9
    assert not module.optimizer._optimizer_step_pre_hooks


# ---------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "steps=None and epochs=None: give the length"),
        ({"steps": 5, "epochs": 1}, "steps=5 and epochs=1: give the length of the warm-up in one of them"),
        ({"steps": -1}, "steps=-1 is negative"),
        ({"epochs": -0.5}, "epochs=-0.5 is negative"),
        ({"steps": 5, "start_factor": 2.0}, "start_factor=2.0 is no fraction"),
        ({"steps": 5, "bias_lr": -0.1}, "bias_lr=-0.1 is negative"),
        ({"steps": 5, "momentum": 1.1}, "momentum=1.1 is no fraction"),
        ({"steps": 5, "reference_batch_size": 0}, "reference_batch_size=0 is no batch"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LRWarmup(**arguments)


def sequential(optimizer: torch.optim.Optimizer) -> lr_scheduler.SequentialLR:
    parts = [lr_scheduler.LinearLR(optimizer), lr_scheduler.CosineAnnealingLR(optimizer, 20)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[4])


def refusals() -> Iterator[Any]:
    yield LRWarmup(24), None, "LRWarmup takes 24 optimizer steps and the whole run 24: shorten it or train longer"
    yield LRWarmup(epochs=30), None, "LRWarmup takes 240 optimizer steps and the whole run 24"
    warm = functools.partial(WarmupCosine, total_steps=24, warmup_steps=3)
    yield LRWarmup(3), warm, "two warm-ups, LRWarmup and that of WarmupCosine: drop the callback, or take"
    yield LRWarmup(3), sequential, "two warm-ups, LRWarmup and that of LinearLR"
    one_cycle = functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=24)
    yield LRWarmup(3), one_cycle, "two warm-ups, LRWarmup and that of OneCycleLR"


@pytest.mark.parametrize(("warmup", "scheduler", "message"), list(refusals()))
def test_warmups_that_cannot_be_are_refused(
    tmp_path: Path, warmup: LRWarmup, scheduler: Callable[..., Any] | None, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fit(tmp_path, Scheduled(scheduler), warmup)


def test_two_warmup_callbacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="two LRWarmup callbacks: keep one"):
        fit(tmp_path, Scheduled(), LRWarmup(3), callbacks=[LRWarmup(5)])


def test_momentum_of_an_optimizer_without_it_is_refused(tmp_path: Path) -> None:
    module = Scheduled()
    for group in module.optimizer.param_groups:
        group["momentum"] = 0.0
    with pytest.raises(ConfigurationError, match=r"momentum=0.8 has nothing to warm up, as this RecordingSGD has"):
        fit(tmp_path, module, LRWarmup(3, momentum=0.8))
