"""What a run folder says of its run, and when there is none."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from torch.multiprocessing import ProcessRaisedException

from detlit.cli.run_folder import RunFolder, describe_run, without_empty_folder
from tests.cli.test_lightning import run, write_config


def runs_in(folder: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = yaml.safe_load((folder / "run.yaml").read_text())
    return entries


def test_a_run_says_how_it_was_started_and_a_resumed_one_adds_to_it(tmp_path: Path) -> None:
    fixed = ("--config", write_config(tmp_path), "--trainer.logger", "false", "--trainer.max_epochs=-1")
    train = "--data.train={class_path: 'ShapesDataset', init_args: {num_images: 8, image_size: 64}}"
    first = ("fit", *fixed, train, "--trainer.max_steps", "1")
    assert run(*first) == 0
    folder = tmp_path / "runs"
    before = (folder / "run.yaml").read_text()
    checkpoint = str(folder / "checkpoints/last.ckpt")
    assert run("fit", *fixed, "--ckpt_path", checkpoint, "--trainer.max_steps", "2") == 0
    assert (folder / "run.yaml").read_text().startswith(before)
    old, new = runs_in(folder)
    assert shlex.split(old["command"]) == ["detlit", *first]
    assert shlex.join(first) in before  # unescaped, so that it can be copied
    assert old["class_names"] == ["circle", "triangle", "square", "star", "ring", "cross"]
    assert old["devices"] == "1 x cpu"
    assert old["versions"].keys() == {"detlit", "python", "torch", "lightning", "numpy", "opencv"}
    assert "resumed_from" not in old
    assert new["resumed_from"] == checkpoint
    assert new["started"] >= old["started"]
    assert not list(tmp_path.rglob("hparams.yaml"))


@pytest.mark.parametrize("value", ["a\nb: 'c'\n\n      \nd", "a\u2028b", "\x1b[1m", "a\r\nb", "\t'"])
def test_a_command_with_odd_characters_stays_as_it_is(value: str, tmp_path: Path) -> None:
    command = shlex.join(["detlit", "fit", "--data", value])
    saver = RunFolder(LightningArgumentParser(), {}, command=command)
    strategy = SimpleNamespace(root_device=SimpleNamespace(type="cpu"))
    trainer: Any = SimpleNamespace(world_size=2, strategy=strategy)
    saver._folder = tmp_path
    for _ in range(2):
        saver.save_config(trainer, pl_module=SimpleNamespace(), stage="fit")  # type: ignore[arg-type]
    assert [entry["command"] for entry in runs_in(tmp_path)] == [command, command]
    assert runs_in(tmp_path)[0]["devices"] == "2 x cpu"
    assert "class_names" not in runs_in(tmp_path)[0]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_of_the_working_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    def commit() -> Any:
        strategy = SimpleNamespace(root_device=SimpleNamespace(type="cpu"))
        trainer: Any = SimpleNamespace(world_size=1, strategy=strategy)
        return describe_run(trainer, SimpleNamespace()).get("commit")  # type: ignore[arg-type]

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert commit() is None
    git("init", "-q")
    assert commit() is None
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    git("tag", "v1")
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert commit() == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit() is None


@pytest.mark.parametrize(
    "wrong", [("--model.optimizer.lr", "-1"), ("--checkpoint.monitor", "val/mAP")], ids=["in setup", "in sanity check"]
)
def test_a_run_that_cannot_start_leaves_no_folder(wrong: tuple[str, str], tmp_path: Path) -> None:
    assert run("fit", "--config", write_config(tmp_path), *wrong) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


class Fails(Callback):
    """Fails in the second step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            raise RuntimeError("on purpose")


def test_a_run_that_fails_in_training_keeps_its_folder(tmp_path: Path) -> None:
    callback = f"--trainer.callbacks+={__name__}.Fails"
    with pytest.raises(RuntimeError, match="on purpose"):
        run("fit", "--config", write_config(tmp_path), callback)
    assert {"config.yaml", "run.yaml"} <= {path.name for path in (tmp_path / "runs/version_0").iterdir()}


def failing(folder: Path, make: Callable[[], None], rank: int = 0, **changes: Any) -> None:
    """Let a run fail after it, or somebody else, has made something."""
    state = {"log_dir": str(folder), "loggers": [1], "fast_dev_run": False, "is_global_zero": rank == 0, **changes}
    trainer: Any = SimpleNamespace(**state)

    def fail() -> None:
        make()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), without_empty_folder(trainer):
        fail()


EVENTS = f"events.out.tfevents.1.host.{os.getpid()}.0"


@pytest.mark.parametrize(
    ("files", "rank", "there_before", "kept"),
    [
        ([], 0, False, False),
        ([EVENTS], 0, False, False),
        ([EVENTS], 1, False, True),
        ([EVENTS], 0, True, True),
        (["events.out.tfevents.1.host.0.0"], 0, False, True),
        ([EVENTS, "run.yaml"], 0, False, True),
        ([EVENTS, "metrics.csv"], 0, False, True),
        (["checkpoints/last.ckpt"], 0, False, True),
    ],
    ids=["empty", "own events", "another rank", "there before", "events of another", "trained", "logged", "saved"],
)
def test_nothing_but_an_empty_folder_of_its_own_is_removed(
    files: list[str], rank: int, there_before: bool, kept: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "version_0"

    def make() -> None:
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        folder.mkdir(parents=True, exist_ok=True)

    if there_before:
        folder.mkdir(parents=True)
    failing(folder, make, rank)
    assert all((folder / file).exists() == kept for file in files)
    assert (tmp_path / "runs").exists() == kept


@pytest.mark.parametrize("changes", [{"loggers": []}, {"fast_dev_run": 1}, {"log_dir": None}])
def test_a_run_without_a_folder_of_its_own_removes_nothing(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may have put its folder into ``runs`` since this one began."""
    monkeypatch.chdir(tmp_path)
    others = tmp_path / "runs" / "version_0"
    failing(tmp_path / "runs", lambda: others.mkdir(parents=True), **changes)
    assert others.is_dir()


def test_a_folder_that_another_run_shares_by_now_stays(tmp_path: Path) -> None:
    failing(tmp_path / "runs" / "version_0", lambda: (tmp_path / "runs" / "version_0" / "sub").mkdir(parents=True))
    assert (tmp_path / "runs" / "version_0" / "sub").is_dir()


@pytest.mark.slow
@pytest.mark.distributed
def test_spawned_processes_know_the_config_and_a_run_that_fails_there_keeps_its_folder(tmp_path: Path) -> None:
    spawned = ("--trainer.strategy", "ddp_spawn", "--trainer.devices", "2", "--data.batch_size", "2")
    assert run("fit", "--config", write_config(tmp_path), *spawned) == 0
    assert {"config.yaml", "run.yaml"} <= {path.name for path in (tmp_path / "runs/version_0").iterdir()}
    with pytest.raises(ProcessRaisedException, match="on purpose"):
        run("fit", "--config", write_config(tmp_path), *spawned, f"--trainer.callbacks+={__name__}.Fails")
    assert {"config.yaml", "run.yaml"} <= {path.name for path in (tmp_path / "runs/version_1").iterdir()}
