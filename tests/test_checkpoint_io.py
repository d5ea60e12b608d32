from pathlib import Path
from typing import Any

import pytest
import torch

from detlit.checkpoint_io import AtomicCheckpointIO
from tests.callbacks.tiny import TinyModule, quiet_trainer


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_checkpoint_is_written_into_a_new_folder_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 3}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"epoch": 3}
    assert names(path.parent) == ["last.ckpt"]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_save_that_breaks_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exception: BaseException
) -> None:
    checkpoint_io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    checkpoint_io.save_checkpoint({"epoch": 3}, path)

    def write_half(checkpoint: Any, file: Any) -> None:
        file.write(b"half a file")
        raise exception

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", write_half)
        with pytest.raises((KeyboardInterrupt, OSError)):
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
