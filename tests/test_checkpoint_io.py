import itertools
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from detlit.checkpoint_io import AtomicCheckpointIO
from detlit.errors import CheckpointError
from detlit.models.torch_files import read_torch_file
from tests.callbacks.tiny import TinyModule, quiet_trainer


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_checkpoint_is_written_into_a_new_folder_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 3}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"epoch": 3}
    assert names(path.parent) == ["last.ckpt"]


@pytest.mark.parametrize(
    ("exception", "message"),
    [
        (KeyboardInterrupt("stop"), "stop"),
        (OSError(28, "No space left"), r"last\.ckpt cannot be written \(No space left\): make room there"),
        (RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 9 vs 2"), "the disk seems full"),
        (RuntimeError("a bug"), "a bug"),
    ],
)
def test_a_save_that_breaks_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exception: BaseException, message: str
) -> None:
    checkpoint_io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    checkpoint_io.save_checkpoint({"epoch": 3}, path)

    def write_half(checkpoint: Any, file: Any) -> None:
        file.write(b"half a file")
        raise exception

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", write_half)
        with pytest.raises((KeyboardInterrupt, CheckpointError, RuntimeError), match=message):
            checkpoint_io.save_checkpoint({"epoch": 4}, path)
    assert checkpoint_io.load_checkpoint(path) == {"epoch": 3}
    assert names(tmp_path) == ["last.ckpt"]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt.part").write_bytes(b"half a file that is longer than the checkpoint" * 1000)
    AtomicCheckpointIO().save_checkpoint({"epoch": 4}, tmp_path / "last.ckpt")
    assert AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt") == {"epoch": 4}
    assert names(tmp_path) == ["last.ckpt"]


def test_remote_paths_are_lightnings(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"epoch": 5}, f"file://{tmp_path}/last.ckpt")
    assert AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt") == {"epoch": 5}


def test_the_trainer_saves_and_resumes_through_it(tmp_path: Path) -> None:
    quiet_trainer(tmp_path, plugins=[AtomicCheckpointIO()], max_epochs=1).fit(TinyModule())
    (path,) = (tmp_path / "checkpoints").iterdir()
    trainer = quiet_trainer(tmp_path, plugins=[AtomicCheckpointIO()], max_epochs=2)
    trainer.fit(TinyModule(), ckpt_path=path)
    assert trainer.global_step == 16


def write_three(folder: Path) -> tuple[Path, Path, Path]:
    """Write a whole, a cut and, newest of all, a flipped checkpoint."""
    paths = folder / "best.ckpt", folder / "epoch_1.ckpt", folder / "last.ckpt"
    for age, path in enumerate(paths):
        AtomicCheckpointIO().save_checkpoint({"weights": torch.arange(4096.0)}, path)
        os.utime(path, (age, age))
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    flipped = bytearray(paths[2].read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF
    paths[2].write_bytes(flipped)
    return paths


@pytest.mark.parametrize("load", [AtomicCheckpointIO().load_checkpoint, read_torch_file], ids=["trainer", "others"])
def test_a_cut_file_is_named_with_the_newest_whole_one(tmp_path: Path, load: Any) -> None:
    whole, cut, _ = write_three(tmp_path)
    with pytest.raises(CheckpointError, match=rf"{cut.name} is damaged .* the newest whole one beside it is {whole}\."):
        load(cut)


def test_an_empty_file_alone_is_named(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged or cut short: no other checkpoint is beside it"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(FileNotFoundError):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "no.ckpt")


def save_forever(path: Path, temporary: str, started: Any) -> None:
    """Save numbered checkpoints until killed."""
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    for number in itertools.count():
        AtomicCheckpointIO().save_checkpoint({"number": number, "weights": torch.full((1_000_000,), number)}, path)
        started.set()


@pytest.mark.distributed
@pytest.mark.parametrize("temporary", [None, "/dev/shm"])
def test_sixteen_kills_within_saves_leave_no_corrupt_checkpoint(tmp_path: Path, temporary: str | None) -> None:
    if temporary is not None and not Path(temporary).is_dir():
        pytest.skip(f"there is no {temporary}")
    folder = tmp_path / "checkpoints"
    context, moments, path = multiprocessing.get_context("fork"), random.Random(0), folder / "last.ckpt"
    strays = set(Path(temporary).iterdir()) if temporary else set()
    interrupted = 0
    for _ in range(16):
        started = context.Event()
        process = context.Process(target=save_forever, args=(path, temporary or str(tmp_path), started))
        process.start()
        assert started.wait(30)
        time.sleep(moments.uniform(0.0, 0.05))
        process.kill()
        process.join()
        checkpoint = read_torch_file(path)
        assert bool((checkpoint["weights"] == checkpoint["number"]).all())
        interrupted += path.with_name("last.ckpt.part").exists()
        assert len(names(folder)) <= 2
    assert interrupted > 0  # otherwise no kill hit a save
    assert not temporary or not [path for path in set(Path(temporary).iterdir()) - strays if path.suffix == ".ckpt"]
