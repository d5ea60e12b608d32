"""``detlit fit`` stopped by a signal, and its next run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from detlit.cli.runs import newest_checkpoint, with_named_checkpoints
from detlit.cli.trainer import DetlitTrainer
from detlit.errors import ConfigurationError
from tests.cli.test_lightning import write_config
from tests.resume import differences


def detlit(*arguments: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "detlit", *arguments]
    return subprocess.Popen(
        command, cwd=Path(__file__).parents[2], env=environment, stderr=subprocess.PIPE, start_new_session=True
    )


def steps_logged(run: Path) -> int:
    checkpoint = run / "checkpoints" / "last.ckpt"
    return int(torch.load(checkpoint, weights_only=True)["global_step"]) if checkpoint.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [False, True], ids=["one", "all"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_fit_exits_with_its_status_and_the_next_goes_on(
    number: signal.Signals, status: int, to_all: bool, tmp_path: Path
) -> None:
    """Schedulers and terminals signal all processes of a run, those that load data too."""
    states = []
    for name in ("whole", "stopped"):
        folder = tmp_path / name
        folder.mkdir()
        config = write_config(folder)
        fit = ("fit", "--config", config, "--trainer.max_epochs=40", "--checkpoint.every_n_steps=3")
        fit += (f"--data.num_workers={2 * to_all}",)
        first = detlit(*fit)
        if name == "stopped":
            while steps_logged(folder / "runs/version_0") < 6:
                assert first.poll() is None
                time.sleep(0.05)
            (os.killpg if to_all else os.kill)(first.pid, number)
            error = first.communicate()[1].decode()
            assert first.returncode == status
            assert "Traceback" not in error
            stopped_at = steps_logged(folder / "runs/version_0")
            assert 6 <= stopped_at < 80
            second = detlit(*fit, "--ckpt_path", "last")
            assert second.wait() == 0
            run = folder / "runs/version_1"
        else:
            assert first.wait() == 0
            run = folder / "runs/version_0"
        checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        names = ("state_dict", "current_model_state", "optimizer_states", "global_step", "epoch")
        states.append({key: checkpoint[key] for key in names})
    assert differences(*states) == []


def test_last_and_best_mean_the_newest_of_the_runs(tmp_path: Path) -> None:
    for age, run in enumerate(("version_0", "version_2", "version_1")):
        path = tmp_path / run / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (age, age))
    newest = tmp_path / "version_1" / "checkpoints" / "last.ckpt"
    config = tmp_path / "tiny.yaml"
    config.write_text(f"trainer: {{default_root_dir: {tmp_path}}}")
    assert newest_checkpoint("last", tmp_path) == newest
    for given in (["--config", str(config)], [f"--trainer.default_root_dir={tmp_path}"]):
        for flag in (["--ckpt_path", "last"], ["--ckpt_path=last"]):
            assert str(newest) in " ".join(with_named_checkpoints(["fit", *given, *flag]))
    other = ["fit", "--config", str(config), f"--checkpoint.dirpath={newest.parent}", "--ckpt_path=last"]
    assert with_named_checkpoints(other)[-1] == f"--ckpt_path={newest}"
    with pytest.raises(ConfigurationError, match=r"means the newest best\.ckpt in .*, and there is none: train first"):
        with_named_checkpoints(["validate", "--config", str(config), "--ckpt_path", "best"])


def test_synchronised_batch_norm_is_left_out_on_a_cpu() -> None:
    arguments: dict[str, Any] = {"accelerator": "cpu", "devices": 2, "strategy": "ddp_fork", "logger": False}
    with pytest.warns(UserWarning, match="sync_batchnorm=true is left out"):
        trainer = DetlitTrainer(**arguments, sync_batchnorm=True)
    assert trainer.strategy._layer_sync is None
    assert Trainer(**arguments, sync_batchnorm=True).strategy._layer_sync is not None


@pytest.mark.parametrize("given", ["model: [\n", "\xff"], ids=["no-yaml", "no-text"])
def test_a_config_that_cannot_be_read_is_named_before_checkpoints_are_looked_for(tmp_path: Path, given: str) -> None:
    config = tmp_path / "broken.yaml"
    config.write_text(given, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=r"config .*broken\.yaml"):
        with_named_checkpoints(["fit", "--config", str(config), "--ckpt_path", "last"])


def test_inline_json_that_is_none_is_left_to_the_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"newest last\.ckpt in runs, and there is none"):
        with_named_checkpoints(["fit", "--config", '{"trainer"', "--ckpt_path", "last"])
