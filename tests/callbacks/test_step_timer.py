from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detlit.callbacks import EMA, PreciseBatchNorm, StepTimer, step_timer
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, quiet_trainer

PARTS = ("data", "transfer", "forward", "loss", "backward", "optimizer")


class Clock:
    """Shows the seconds that the module says have passed."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedLoss(nn.Module):
    """Takes 8 seconds forward and 16 back."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.clock.now += 8
        loss = (outputs - targets).square().mean()
        if loss.requires_grad:
            loss.register_hook(self._back)
        return loss

    def _back(self, gradient: Tensor) -> None:
        self.clock.now += 16


class Timed(TinyModule):
    """Each part of a step takes twice as long as the one before; validation takes 1000 seconds a batch."""

    def __init__(self, clock: Clock, with_loss: bool = True) -> None:
        super().__init__()
        self.clock = clock
        loss = TimedLoss(clock)
        self.compute = loss if with_loss else loss.forward
        if with_loss:
            self.loss = loss
        self.entries: list[dict[str, float]] = []

    def train_dataloader(self) -> DataLoader[Any]:
        def collate(rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
            self.clock.now += 1
            inputs, outputs = zip(*rows, strict=True)
            return torch.stack(inputs), torch.stack(outputs)

        loader = super().train_dataloader()
        return DataLoader(loader.dataset, batch_size=2, collate_fn=collate)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        self.clock.now += 2
        return batch

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.clock.now += 3
        loss: Tensor = self.compute(self.network(batch[0]), batch[1])
        self.clock.now += 1
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.clock.now += 1000
        self.log("val/loss", self.compute(self.network(batch[0]), batch[1]))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.clock.now += 32

    def log_dict(self, dictionary: Any, *args: Any, **kwargs: Any) -> None:
        self.entries.append(dict(dictionary))
        super().log_dict(dictionary, *args, **kwargs)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *callbacks: Any, **arguments: Any) -> tuple[Timed, Any]:
    """Train two epochs of eight batches by a clock of their own."""
    clock = Clock()
    monkeypatch.setattr(step_timer, "perf_counter", clock)
    module = Timed(clock, arguments.pop("with_loss", True))
    timer = StepTimer(every_n_steps=arguments.pop("every_n_steps", 4))
    options = {"max_epochs": 2, "enable_checkpointing": False, "num_sanity_val_steps": 1, **arguments}
    trainer = quiet_trainer(folder, callbacks=[timer, *callbacks], **options)
    trainer.fit(module)
    return module, trainer


@pytest.mark.parametrize(
    "arguments", [{}, {"val_check_interval": 0.25}, {"precise": True}], ids=["epochs", "within", "precise batch norm"]
)
def test_every_part_has_its_own_time_and_validation_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    more = [PreciseBatchNorm(4), EMA(0.9, validate="both")] if arguments.pop("precise", False) else []
    module, trainer = run(tmp_path, monkeypatch, *more, **arguments)
    assert len(module.entries) == 4
    for entry in module.entries:
        assert [entry[f"time/{part}"] for part in PARTS] == [1, 2, 4, 8, 16, 32]
        assert entry["time/step"] == sum(entry[f"time/{part}"] for part in PARTS) == 63
        assert entry["time/images_per_second"] == pytest.approx(2 / 63)
    expected = {f"time/{part}" for part in (*PARTS, "step", "images_per_second")}
    assert {name for name in trainer.progress_bar_metrics if name.startswith("time/")} == expected
    assert {name for name in trainer.callback_metrics if name.startswith("time/")} == expected


def test_without_a_loss_module_it_counts_as_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _ = run(tmp_path, monkeypatch, with_loss=False)
    assert "time/loss" not in module.entries[0]
    assert module.entries[0]["time/forward"] == 12
    assert module.entries[0]["time/step"] == 63


def test_accumulated_batches_share_the_optimizer_s_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _ = run(tmp_path, monkeypatch, accumulate_grad_batches=2)
    assert [module.entries[0][f"time/{part}"] for part in PARTS] == [1, 2, 4, 8, 16, 16]


@pytest.mark.parametrize("breaks", [False, True])
def test_afterwards_nothing_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: bool) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=[StepTimer()], enable_checkpointing=False)
    module = Timed(Clock())
    if breaks:
        monkeypatch.setattr(module, "on_train_batch_end", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trainer.fit(module)
    else:
        trainer.fit(module)
    assert "batch_to_device" not in vars(trainer.strategy)
    assert not module.loss._forward_hooks
    assert not module.loss._forward_pre_hooks


@pytest.mark.parametrize(("every", "entries"), [(1, 8), (4, 2), (9, 0)])
def test_it_logs_every_so_many_steps(tmp_path: Path, every: int, entries: int, monkeypatch: Any) -> None:
    module, _ = run(tmp_path, monkeypatch, every_n_steps=every, max_epochs=1)
    assert len(module.entries) == entries


def test_no_interval_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="every_n_steps=0 is too small"):
        StepTimer(every_n_steps=0)


@pytest.mark.parametrize("synchronize", [False, True])
def test_on_a_gpu_the_peak_of_memory_is_logged_and_waiting_is_a_choice(
    monkeypatch: pytest.MonkeyPatch, synchronize: bool
) -> None:
    waits: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**29)
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(device=torch.device("cuda"), log_dict=lambda values, **_: logged.update(values))
    trainer: Any = SimpleNamespace(global_step=1)
    timer = StepTimer(every_n_steps=1, synchronize=synchronize)
    timer.on_before_backward(trainer, module, torch.zeros(()))
    timer.on_train_batch_end(trainer, module, None, None, 0)
    assert logged["memory/peak_gib"] == 1.5
    assert waits == ([module.device] * 2 if synchronize else [])
