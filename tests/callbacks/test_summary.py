from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from detlit.callbacks import Checkpoint, RunSummary, default_callbacks
from detlit.callbacks.ema import EMA
from tests.callbacks.tiny import TinyModule, quiet_trainer


def trainer_with_summary(folder: Path, **arguments: Any) -> Trainer:
    return quiet_trainer(folder, callbacks=[RunSummary(), *Checkpoint(dirpath=folder).callbacks()], **arguments)


def test_fit_ends_with_metrics_and_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_with_summary(tmp_path, max_epochs=3).fit(TinyModule([0.1, 0.51234, 0.3]))
    _, title, out = capsys.readouterr().out.partition("after 3 of 3 epochs")
    assert title
    assert out.index("val/map") < out.index("train/loss")
    assert "0.3000" in out
    assert f"best checkpoint: {tmp_path / 'best.ckpt'} (val/map 0.5123)\n" in out
    assert f"last checkpoint: {tmp_path / 'last.ckpt'}\n" in out


def test_each_validation_prints_a_line_where_there_is_no_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer_with_summary(tmp_path, max_epochs=2).fit(TinyModule([0.1, 0.51234]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 0, step 8", "epoch 1, step 16"]
    assert "val/map 0.5123" in lines[1]
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    trainer_with_summary(tmp_path, max_epochs=1, enable_progress_bar=True).fit(TinyModule([0.1]))
    assert "epoch 0, step 8:" not in capsys.readouterr().out


def test_a_run_that_stops_early_says_after_which_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_with_summary(tmp_path, max_epochs=9, max_steps=16).fit(TinyModule([0.1, 0.2]))
    assert "after 2 of 9 epochs" in capsys.readouterr().out


def test_without_validation_no_best_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_with_summary(tmp_path, limit_val_batches=0).fit(TinyModule())
    out = capsys.readouterr().out
    assert "train/loss" in out
    assert "best checkpoint" not in out
    assert "last checkpoint" in out


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt])
def test_an_aborted_run_prints_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], exception: type[BaseException]
) -> None:
    module = TinyModule([0.1, 0.2])
    trainer = trainer_with_summary(tmp_path, max_epochs=2)

    def fail_in_the_second_epoch() -> None:
        if trainer.current_epoch == 1:
            raise exception

    module.on_step = fail_in_the_second_epoch
    with pytest.raises((exception, SystemExit)):
        trainer.fit(module)
    assert [line[:16] for line in capsys.readouterr().out.splitlines()] == ["epoch 0, step 8:"]


def test_a_fast_dev_run_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_with_summary(tmp_path, fast_dev_run=True).fit(TinyModule([0.1]))
    assert "checkpoint" not in capsys.readouterr().out


@pytest.mark.parametrize(("stage", "title"), [("validate", "validation"), ("test", "test")])
def test_evaluation_prints_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, title: str
) -> None:
    trainer = trainer_with_summary(tmp_path)
    getattr(trainer, stage)(TinyModule([0.25]))
    out = capsys.readouterr().out
    assert title in out
    assert out.count("/map") == 1


def test_what_nothing_measures_is_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_with_summary(tmp_path).validate(TinyModule([-1.0]))
    assert "-1.0" not in (out := capsys.readouterr().out)
    assert "- │" in out


def test_default_callbacks_train_and_save(tmp_path: Path) -> None:
    callbacks = default_callbacks()
    assert any(isinstance(callback, EMA) for callback in callbacks)
    quiet_trainer(tmp_path, callbacks=callbacks).fit(TinyModule([0.1]))
    assert {file.name for file in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
