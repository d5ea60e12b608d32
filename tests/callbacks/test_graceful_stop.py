import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.multiprocessing import ProcessExitedException

from detlit.callbacks import EMA, Checkpoint, ExactResume, GracefulStop, TrainingStopped
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, assert_same, quiet_trainer


class At(Callback):
    """Does something, once, at a hook as soon as so many optimizer steps are done."""

    def __init__(self, hook: str, step: int, do: Any) -> None:
        self.step, self.do = step, do
        setattr(self, hook, self._run)

    def _run(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step >= self.step:
            self.step = 1_000_000
            self.do()


def send(number: signal.Signals) -> Any:
    return lambda: os.kill(os.getpid(), number)


def fit(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None, **arguments: Any) -> Trainer:
    always = [EMA(0.9), ExactResume(), *Checkpoint(dirpath=folder, **arguments.pop("checkpoint", {})).callbacks()]
    trainer = quiet_trainer(folder, callbacks=[*callbacks, *always], **{"max_epochs": 3, **arguments})
    trainer.fit(TinyModule(), ckpt_path=ckpt_path)
    return trainer


def last(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return checkpoint


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_signal_stops_after_the_optimizer_step_with_a_checkpoint_of_it(
    tmp_path: Path, number: signal.Signals, code: int, accumulate: int, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(TrainingStopped) as stopped:
        fit(
            tmp_path,
            At("on_train_batch_start", 2, send(number)),
            GracefulStop(),
            accumulate_grad_batches=accumulate,
        )
    assert stopped.value.code == code
    assert last(tmp_path)["global_step"] == 3
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize(
    ("hook", "step", "saved_at", "validations"),
    [
        ("on_train_batch_end", 8, 8, 3),  # the last batch of the epoch
        ("on_validation_batch_end", 8, 8, 3),
        ("on_validation_epoch_end", 8, 8, 2),
        ("on_train_epoch_end", 8, 8, 2),
        ("on_train_epoch_start", 8, 8, 2),
    ],
)
def test_a_run_that_was_stopped_anywhere_becomes_the_whole_run(
    tmp_path: Path, hook: str, step: int, saved_at: int, validations: int
) -> None:
    fit(tmp_path / "whole", GracefulStop())
    with pytest.raises(TrainingStopped):
        fit(tmp_path / "half", At(hook, step, send(signal.SIGTERM)), GracefulStop())
    assert last(tmp_path / "half")["global_step"] == saved_at
    trainer = fit(tmp_path / "half", GracefulStop(), ckpt_path=tmp_path / "half" / "last.ckpt")
    resumed, whole = last(tmp_path / "half"), last(tmp_path / "whole")
    assert_same(resumed["state_dict"], whole["state_dict"])
    assert_same(resumed["current_model_state"], whole["current_model_state"])
    assert resumed["epoch"] == whole["epoch"]
    assert resumed["global_step"] == whole["global_step"] == 24
    assert len(trainer.lightning_module.seen) == validations  # an interrupted one is repeated


def test_a_second_interrupt_leaves_at_once_without_saving(tmp_path: Path) -> None:
    twice = At("on_train_batch_start", 3, lambda: [send(signal.SIGINT)() for _ in range(2)])
    with pytest.raises(TrainingStopped) as stopped:
        fit(tmp_path, twice, GracefulStop())
    assert stopped.value.code == 130
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize("given", [None, "elsewhere"])
def test_a_stop_file_stops_with_status_0_and_is_deleted(tmp_path: Path, given: str | None) -> None:
    file = tmp_path / (given or "stop")
    with pytest.raises(TrainingStopped) as stopped:
        fit(tmp_path, At("on_train_batch_start", 2, file.touch), GracefulStop(given and file))
    assert stopped.value.code == 0
    assert last(tmp_path)["global_step"] == 3
    assert not file.exists()


def test_a_signal_in_the_sanity_check_stops_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped) as stopped:
        fit(
            tmp_path,
            At("on_validation_batch_start", 0, send(signal.SIGTERM)),
            GracefulStop(),
            num_sanity_val_steps=2,
        )
    assert stopped.value.code == 143
    assert not (tmp_path / "last.ckpt").exists()


def test_without_a_checkpoint_callback_of_ours_it_goes_to_the_root_folder(tmp_path: Path) -> None:
    callbacks = [At("on_train_batch_start", 2, send(signal.SIGTERM)), GracefulStop()]
    with pytest.raises(TrainingStopped):
        quiet_trainer(tmp_path, callbacks=callbacks, enable_checkpointing=False).fit(TinyModule())
    assert last(tmp_path)["global_step"] == 3


def test_callbacks_after_it_in_the_list_have_finished_the_step(tmp_path: Path) -> None:
    class Counter(Callback):
        steps = 0

        def on_train_batch_end(self, *_: Any) -> None:
            self.steps += 1

        def state_dict(self) -> dict[str, Any]:
            return {"steps": self.steps}

    with pytest.raises(TrainingStopped):
        fit(tmp_path, GracefulStop(), At("on_train_batch_start", 2, send(signal.SIGTERM)), Counter())
    assert last(tmp_path)["callbacks"][Counter().state_key] == {"steps": 3}


def test_a_finished_run_ends_as_ever_and_another_can_follow(tmp_path: Path) -> None:
    handler, stop = signal.getsignal(signal.SIGTERM), GracefulStop()
    for _ in range(2):
        fit(tmp_path, stop, max_epochs=1)
        assert signal.getsignal(signal.SIGTERM) is handler


class Kept(GracefulStop):
    """Writes down when its rank decided."""

    folder = Path()

    def _leave(self, trainer: Trainer, where: str) -> Any:
        (self.folder / f"left{trainer.global_rank}").write_text(str(trainer.global_step))
        super()._leave(trainer, where)


@pytest.mark.distributed
@pytest.mark.parametrize(("every", "step"), [(1, 2), (4, 4)])
def test_all_ranks_stop_at_the_same_agreed_step(tmp_path: Path, every: int, step: int) -> None:
    stop = Kept(agree_every_n_steps=every)
    stop.folder = tmp_path  # type: ignore[misc]

    class TermOnRank1(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_rank == 1 and trainer.global_step == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(ProcessExitedException, match="exit code 143"):
        fit(tmp_path, stop, TermOnRank1(), devices=2, strategy="ddp_fork")
    assert [(tmp_path / f"left{rank}").read_text() for rank in range(2)] == [str(step)] * 2
    assert last(tmp_path)["global_step"] == step


def test_never_agreeing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="agree_every_n_steps=0 would never stop"):
        GracefulStop(agree_every_n_steps=0)
