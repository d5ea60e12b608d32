"""Resuming in the middle of an epoch yields exactly the remaining samples."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from detlit.data import DetectionDataModule, ShapesDataset
from detlit.structures import Batch
from tests.data.test_datamodule import Counter, shapes_module


class Recorder(Counter):
    """Notes index and pixels of each training image."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen["train"] += [
            (self.current_epoch, index, int(image.long().sum()))  # type: ignore[misc]
            for index, image in zip(batch.dataset_indices, batch.images, strict=True)
        ]
        return self.layer(batch.images.float().mean().reshape(1, 1)).sum()


def data(workers: int = 0, **arguments: Any) -> DetectionDataModule:
    return shapes_module(train=ShapesDataset(22, 64), num_workers=workers, multi_scale=(0.5, 1.5), **arguments)


def fit(module: Recorder, workers: int, folder: Path, ckpt_path: str | None = None, **arguments: Any) -> None:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **{"max_epochs": 3, "enable_checkpointing": False, **arguments},
    )
    trainer.fit(module, data(workers), ckpt_path=ckpt_path)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", [2, 5, 8], ids=["first epoch", "end of an epoch", "second epoch"])
def test_a_resumed_run_sees_what_the_whole_run_saw(tmp_path: Path, workers: int, step: int) -> None:
    whole, resumed = Recorder(), Recorder()
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    fit(whole, workers, tmp_path, callbacks=[saver], enable_checkpointing=True)
    assert len(whole.seen["train"]) == 60
    fit(resumed, workers, tmp_path, str(tmp_path / f"step={step}.ckpt"))
    assert resumed.seen["train"] == whole.seen["train"][4 * step :]


def test_the_state_counts_images_taken() -> None:
    loader = data().train_dataloader()
    loader.sampler.set_epoch(1)
    iterator = iter(loader)
    next(iterator), next(iterator)
    assert loader.state_dict() == {"epoch": 1, "samples": 8}
    rest = [batch.dataset_indices for batch in iterator]

    again = data().train_dataloader()
    again.load_state_dict({"epoch": 1, "samples": 8})
    again.sampler.set_epoch(1)
    assert again.state_dict() == {"epoch": 1, "samples": 8}
    assert len(again) == 5  # Lightning subtracts what is done itself
    assert [batch.dataset_indices for batch in again] == rest
    again.sampler.set_epoch(2)
    assert len(list(again)) == 5


def test_two_ranks_share_what_one_rank_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: 1)
    loader = data().train_dataloader()
    loader.load_state_dict({"epoch": 0, "samples": 8})
    assert loader.sampler.first_sample == 4
    assert [len(batch) for batch in loader] == [4]
    assert loader.state_dict() == {"epoch": 0, "samples": 16}
