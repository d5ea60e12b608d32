"""Runs in processes of their own, and what their checkpoints have to agree on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TRAINING_STATE = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers")
"""Entries of a checkpoint that decide on the rest of a run, besides the generators' states."""


def run(folder: Path, *options: str) -> int:
    """Train as :mod:`tests.resume_run` says, in a process group of its own, and return the exit status."""
    command = [sys.executable, "-m", "tests.resume_run", str(folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        timeout=300,
        start_new_session=True,
    )
    if done.returncode == 1:
        (folder / "error.txt").write_bytes(done.stderr)
    return done.returncode


def steps(folder: Path, rank: int) -> dict[str, str]:
    """Return what a rank trained on in each batch, by "epoch number"; the later word counts."""
    lines = [line.split(" ", 2) for line in (folder / f"steps_{rank}.txt").read_text().splitlines()]
    return {f"{epoch} {number}": rest for epoch, number, rest in lines}


def training_state(folder: Path) -> dict[str, Any]:
    """Return the parts of ``last.ckpt`` that decide on the rest of a run."""
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    return {name: checkpoint[name] for name in (*TRAINING_STATE, "random_state", "epoch", "global_step")}


def differences(left: Any, right: Any, place: str = "") -> list[str]:
    """Return where two nests of plain data and tensors differ, to the bit."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [where for key in left for where in differences(left[key], right[key], f"{place}/{key}")]
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and len(left) == len(right):
        return [
            where
            for i, pair in enumerate(zip(left, right, strict=True))
            for where in differences(*pair, f"{place}/{i}")
        ]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return [] if torch.equal(left, right) and left.dtype == right.dtype else [place]
    return [] if type(left) is type(right) and left == right else [place]
