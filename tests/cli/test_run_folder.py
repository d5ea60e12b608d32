"""What a run folder says of its run, and when there is none."""

import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from detlit.cli.run_folder import RunFolder, describe_run, kept_if_it_trains
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


def test_a_command_of_several_lines_stays_as_it_is(tmp_path: Path) -> None:
    command = shlex.join(["detlit", "fit", "--data", "a\nb: 'c'\n\nd"])
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
def test_a_run_that_fails_before_its_first_step_leaves_no_folder(wrong: tuple[str, str], tmp_path: Path) -> None:
    assert run("fit", "--config", write_config(tmp_path), *wrong) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    ("file", "stepped", "there_before", "kept"),
    [
        ("config.yaml", False, False, False),
        ("run.yaml", False, False, False),
        ("metrics.csv", False, False, False),
        ("events.out.tfevents.1.host", False, False, False),
        ("config.yaml", True, False, True),
        ("config.yaml", False, True, True),
        ("checkpoints/last.ckpt", False, False, True),
        ("notes.txt", False, False, True),
    ],
)
def test_only_what_a_failed_run_has_made_and_nobody_needs_is_removed(
    file: str, stepped: bool, there_before: bool, kept: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "version_0"
    if there_before:
        folder.mkdir(parents=True)
    saver = RunFolder(LightningArgumentParser(), {}, command="")
    trainer: Any = SimpleNamespace(log_dir=str(folder), callbacks=[saver], is_global_zero=True)

    def fail() -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
        if stepped:
            saver.on_train_batch_end(trainer)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), kept_if_it_trains(trainer):
        fail()
    assert (folder / file).exists() == kept
    assert (tmp_path / "runs").exists() == kept


def test_other_ranks_and_other_runs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "runs" / "version_0").mkdir(parents=True)
    for rank, left in ((1, {"version_0", "version_1"}), (0, {"version_0"})):
        folder = tmp_path / "runs" / "version_1"
        shutil.rmtree(folder, ignore_errors=True)
        trainer: Any = SimpleNamespace(log_dir=str(folder), callbacks=[], is_global_zero=rank == 0)

        def fail(folder: Path = folder) -> None:
            folder.mkdir()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), kept_if_it_trains(trainer):
            fail()
        assert {path.name for path in (tmp_path / "runs").iterdir()} == left
