"""A run that dies and is resumed is, bit for bit, the run that did not die."""

import signal
from pathlib import Path

import pytest

from tests.resume import differences, run, steps, training_state

KINDS = {
    "plain": (),
    "accumulate": ("--accumulate", "2"),
    "two ranks": ("--devices", "2"),
    "bf16": ("--precision", "bf16-mixed"),
    "two workers": ("--workers", "2"),
    "precise batch norm": ("--precise_batch_norm", "6"),
}
"""Of 18 batches in 3 epochs."""

DEATHS = {
    # killed in the second epoch and resumed from the end of the first
    "epoch end": ("--signal", "SIGKILL", "--hook", "on_validation_start"),
    # asked to stop in the middle of the second epoch
    "mid epoch": ("--signal", "SIGTERM"),
    # killed in the second epoch and resumed from a checkpoint in the middle of it
    "kill -9": ("--signal", "SIGKILL", "--every_n_steps", "2"),
}


def middle_of(kind: str) -> str:
    """Return the optimizer steps after which a run dies, in the middle of its second epoch."""
    return "5" if kind == "accumulate" else "9"


def check(kind: str, death: str, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, *KINDS[kind]) == 0
    status = run(broken, *KINDS[kind], *DEATHS[death], "--step", middle_of(kind))
    if death != "mid epoch":
        assert status == -signal.SIGKILL
    elif kind != "two ranks":  # whose forked processes exit with it, and their parent with an error
        assert status == 143
    before = training_state(broken)["global_step"]
    assert run(broken, *KINDS[kind], "--ckpt_path", str(broken / "last.ckpt")) == 0
    assert 0 < before < training_state(broken)["global_step"]
    assert differences(training_state(broken), training_state(whole)) == []
    for rank in range(2 if kind == "two ranks" else 1):
        assert steps(broken, rank) == steps(whole, rank)


@pytest.mark.slow
@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.distributed] if kind == "two ranks" else []) for kind in KINDS]
)
def test_a_resumed_run_is_the_whole_run(kind: str, death: str, tmp_path: Path) -> None:
    check(kind, death, tmp_path)


def test_a_run_that_was_killed_within_an_epoch_is_the_whole_run(tmp_path: Path) -> None:
    check("plain", "kill -9", tmp_path)
