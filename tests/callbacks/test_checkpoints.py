import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from detlit.callbacks import Checkpoint
from detlit.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, quiet_trainer


def fit(folder: Path, scores: list[float], ckpt_path: Path | None = None, **arguments: Any) -> BestCheckpoint:
    """Train an epoch per score and return the callback that kept the best."""
    callbacks = Checkpoint(dirpath=folder, **arguments.pop("checkpoint", {})).callbacks()
    trainer = quiet_trainer(folder, callbacks=callbacks, max_epochs=len(scores), **arguments)
    trainer.fit(TinyModule(scores), ckpt_path=ckpt_path)
    best = callbacks[0]
    assert isinstance(best, BestCheckpoint)
    return best


def epoch_of(path: Path | str) -> int:
    return int(torch.load(path, weights_only=True)["epoch"])


def test_best_is_by_the_metric_and_last_is_the_latest_epoch(tmp_path: Path) -> None:
    best = fit(tmp_path, [0.1, 0.5, 0.3, 0.2])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert epoch_of(tmp_path / "best.ckpt") == 1
    assert epoch_of(tmp_path / "last.ckpt") == 3
    assert best.best_model_score == pytest.approx(0.5)


def test_mode_min_keeps_the_lowest(tmp_path: Path) -> None:
    fit(tmp_path, [0.4, 0.1, 0.3], checkpoint={"mode": "min"})
    assert epoch_of(tmp_path / "best.ckpt") == 1


def test_last_is_written_in_epochs_without_validation(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Nothing logs")
        fit(tmp_path, [0.1, 0.2, 0.3], check_val_every_n_epoch=2)
    assert epoch_of(tmp_path / "best.ckpt") == 1
    assert epoch_of(tmp_path / "last.ckpt") == 2


@pytest.mark.parametrize("same_folder", [True, False])
def test_a_resumed_run_remembers_the_best(tmp_path: Path, same_folder: bool) -> None:
    first, second = tmp_path / "first", tmp_path / ("first" if same_folder else "second")
    fit(first, [0.1, 0.5])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The dirpath has changed")
        best = fit(second, [0.1, 0.5, 0.3], first / "last.ckpt")
    assert Path(best.best_model_path) == first / "best.ckpt"
    assert best.best_model_score == pytest.approx(0.5)
    assert epoch_of(second / "last.ckpt") == 2


def test_a_resumed_run_that_improves_keeps_the_earlier_best_file(tmp_path: Path) -> None:
    fit(tmp_path / "first", [0.1, 0.5])
    best = fit(tmp_path / "second", [0.1, 0.5, 0.7], tmp_path / "first" / "last.ckpt")
    assert Path(best.best_model_path) == tmp_path / "second" / "best.ckpt"
    assert epoch_of(tmp_path / "first" / "best.ckpt") == 1


def test_a_best_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    fit(tmp_path / "first", [0.1, 0.5])
    shutil.move(tmp_path / "first" / "last.ckpt", tmp_path / "moved.ckpt")
    shutil.rmtree(tmp_path / "first")
    best = fit(tmp_path / "second", [0.1, 0.5, 0.3], tmp_path / "moved.ckpt")
    assert Path(best.best_model_path) == tmp_path / "second" / "best.ckpt"
    assert best.best_model_score == pytest.approx(0.3)


class WithoutValidationData(TinyModule):
    def val_dataloader(self) -> list[Any]:
        return []


@pytest.mark.parametrize(("module", "limit"), [(TinyModule, 0), (WithoutValidationData, None)])
def test_without_validation_only_last_is_written_and_that_is_said_once(
    tmp_path: Path, module: type[TinyModule], limit: int | None
) -> None:
    callbacks = Checkpoint(dirpath=tmp_path).callbacks()
    trainer = quiet_trainer(tmp_path, callbacks=callbacks, max_epochs=3, limit_val_batches=limit)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module())
    messages = [str(warning.message) for warning in caught]
    assert sum("only last.ckpt is written" in message for message in messages) == 1
    assert not any("could not find the monitored key" in message for message in messages)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_without_validation_a_training_metric_can_be_monitored(tmp_path: Path) -> None:
    fit(tmp_path, [0.1, 0.2], limit_val_batches=0, checkpoint={"monitor": "train/loss", "mode": "min"})
    assert (tmp_path / "best.ckpt").is_file()


def test_a_misspelt_monitor_is_an_error_that_lists_the_metrics(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"monitor=val/mAP is not logged: choose one of .*val/map"):
        fit(tmp_path, [0.1], checkpoint={"monitor": "val/mAP"}, num_sanity_val_steps=1)


def test_a_run_that_ends_before_its_first_validation_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"no best\.ckpt, because val/map was never measured"):
        fit(tmp_path, [0.1], check_val_every_n_epoch=5)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_users_own_checkpoint_of_the_same_metric_fits_beside(tmp_path: Path) -> None:
    own = ModelCheckpoint(dirpath=tmp_path / "own", monitor="val/map", mode="max", save_top_k=2)
    callbacks = [own, *Checkpoint(dirpath=tmp_path).callbacks()]
    quiet_trainer(tmp_path, callbacks=callbacks, max_epochs=2).fit(TinyModule([0.1, 0.2]))
    assert len(list((tmp_path / "own").iterdir())) == 2
    assert (tmp_path / "best.ckpt").is_file()


def test_folder_of_the_logs_is_the_default(tmp_path: Path) -> None:
    quiet_trainer(tmp_path, callbacks=Checkpoint().callbacks()).fit(TinyModule([0.1]))
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


def test_only_the_last_epochs_compete_for_the_best_where_asked(tmp_path: Path) -> None:
    best = fit(tmp_path, [0.9, 0.1, 0.3, 0.2], checkpoint={"best_in_last_n_epochs": 3})
    assert epoch_of(tmp_path / "best.ckpt") == 2
    assert best.best_model_score == pytest.approx(0.3)


@pytest.mark.parametrize(("count", "kept"), [(0, []), (2, ["epoch_2.ckpt", "epoch_3.ckpt"]), (9, 4)])
def test_the_last_epochs_are_kept(tmp_path: Path, count: int, kept: list[str] | int) -> None:
    fit(tmp_path, [0.1, 0.2, 0.3, 0.4], checkpoint={"save_last_n_epochs": count})
    files = sorted(file.name for file in tmp_path.glob("epoch_*.ckpt"))
    assert files == kept or len(files) == kept
    assert all(f"epoch_{epoch_of(tmp_path / name)}.ckpt" == name for name in files)


@pytest.mark.parametrize(("every", "saved"), [(None, [8, 16]), (3, [3, 6, 8, 9, 12, 15, 16]), (8, [8, 16])])
def test_last_is_also_written_within_epochs(
    tmp_path: Path, every: int | None, saved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    save = LastCheckpoint._save_checkpoint

    def note(self: LastCheckpoint, trainer: Any, filepath: str) -> None:
        save(self, trainer, filepath)
        steps.append(trainer.global_step)

    monkeypatch.setattr(LastCheckpoint, "_save_checkpoint", note)
    fit(tmp_path, [0.1, 0.2], checkpoint={"every_n_steps": every})
    assert steps == saved


@pytest.mark.parametrize("option", ["best_in_last_n_epochs", "save_last_n_epochs"])
def test_counting_from_an_open_end_is_refused(tmp_path: Path, option: str) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=Checkpoint(**{option: 2}).callbacks(), max_epochs=-1, max_steps=4)
    with pytest.raises(ConfigurationError, match=rf"checkpoint\.{option}=2 counts from the end"):
        trainer.fit(TinyModule([0.1]))


@pytest.mark.parametrize("arguments", [{"every_n_steps": 0}, {"best_in_last_n_epochs": 0}, {"save_last_n_epochs": -1}])
def test_numbers_that_mean_nothing_are_refused(arguments: dict[str, int]) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ConfigurationError, match=rf"checkpoint\.{name}={value} is too small"):
        Checkpoint(**arguments)  # type: ignore[arg-type]
