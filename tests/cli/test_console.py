"""What a run prints, and what it does not."""

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import detlit
from detlit.cli.console import EpochProgress, plain_words
from tests.cli.test_lightning import run, write_config

SHOWN = ("--trainer.enable_progress_bar=true", "--trainer.enable_model_summary=null")


def test_a_run_prints_its_size_and_its_epochs_and_no_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    limits = ("--trainer.max_epochs=-1", "--trainer.max_steps=1", "--trainer.log_every_n_steps=50")
    with warnings.catch_warnings(record=True) as seen, caplog.at_level(logging.INFO):
        assert run("fit", "--config", write_config(tmp_path), *SHOWN, *limits) == 0
    printed = capsys.readouterr().out
    assert "M parameters, all of them learn" in printed
    assert "Epoch 0 " in printed
    assert printed.index("Epoch 0 ") < printed.index("after 1 epoch")
    assert not [word for word in ("FLOPs", "v_num", "/-2") if word in printed]
    sentences = [str(warning.message) for warning in seen if issubclass(warning.category, UserWarning)]
    assert [sentence.split(",")[0] for sentence in sentences] == ["There is no best.ckpt"]


def test_what_is_frozen_is_not_said_to_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--config", write_config(tmp_path), "--model.freeze=[backbone]", *SHOWN, "--trainer.max_steps=1")
    assert run("fit", *arguments) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "M parameters, " in line)
    assert "M of them learn" in line
    total, learning = (float(number) for number in line.split() if number[0].isdigit())
    assert 0 < learning < total


@pytest.mark.parametrize(
    "arguments",
    [
        ("--trainer.callbacks+=ModelSummary", "--trainer.callbacks+=TQDMProgressBar", *SHOWN),
        ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=true"),
        ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    ],
    ids=["of one's own", "Lightning's table", "none"],
)
def test_bars_and_tables_of_ones_own_replace_ours(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", "--config", write_config(tmp_path), "--trainer.max_steps=1", *arguments) == 0
    assert "of them learn" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("epochs", "text"), [(3, "Epoch 1/2 "), (-1, "Epoch 1   "), (None, "Epoch 1   "), (1000, "Epoch 1/999")]
)
def test_epochs_count_to_the_last_there_is(epochs: int | None, text: str) -> None:
    bar = EpochProgress()
    bar._trainer = SimpleNamespace(max_epochs=epochs)  # type: ignore[assignment]
    assert bar._get_train_description(1) == text


def test_warnings_are_sentences_and_come_back_as_they_were() -> None:
    before = warnings.formatwarning
    ours = str(Path(detlit.__file__).parent / "data" / "images.py")
    with plain_words("fit"):
        assert warnings.formatwarning("it is so", UserWarning, ours, 3) == "detlit: warning: it is so\n"
        assert (
            warnings.formatwarning("so", UserWarning, "/else/where.py", 3, "f()")
            == "/else/where.py:3: UserWarning: so\n"
        )
    assert warnings.formatwarning is before


@pytest.mark.parametrize(
    ("note", "said"), [("TPU available: False, using: 0 TPU cores", False), ("GPU available: True (cuda)", True)]
)
def test_notes_that_tell_nothing_are_left_out(note: str, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    logger: Any = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO), plain_words("fit"):
        logger.info(note)
    assert (note in caplog.messages) == said


@pytest.mark.parametrize(("command", "said"), [("fit", True), ("validate", False), ("test", False)])
def test_callbacks_that_a_checkpoint_misses_matter_to_resume_alone(command: str, said: bool) -> None:
    sentence = "when using `ckpt_path`, callbacks used to create the checkpoint need to be provided"
    with warnings.catch_warnings(record=True) as seen, plain_words(command):
        warnings.warn(f"Be aware that {sentence} during `Trainer` instantiation: ['PlotMetrics'].", stacklevel=1)
    assert bool(seen) == said
