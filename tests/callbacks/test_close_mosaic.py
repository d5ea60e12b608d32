"""Mosaic ends some epochs before training does, whatever was resumed."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from detlit.callbacks import CloseMosaic
from detlit.data import DetectionDataModule, DetectionSampler, ShapesDataset
from detlit.data.collation import collate
from detlit.data.transforms import Mosaic
from detlit.errors import ConfigurationError
from detlit.structures import Batch
from tests.data.test_datamodule import Counter


class Watcher(Counter):
    """Notes which images of each epoch are those of a mosaic: with as many objects as several scenes have."""

    def __init__(self) -> None:
        super().__init__()
        self.mosaics: dict[int, list[bool]] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        plain = [len(ShapesDataset(8, 64).load_sample(index).boxes) for index in batch.dataset_indices]
        mosaic = [count != own for count, own in zip(batch.counts, plain, strict=True)]
        self.mosaics.setdefault(self.current_epoch, []).extend(mosaic)
        return super().training_step(batch, batch_idx)


def trainer(tmp_path: Path, **arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **{"max_epochs": 4, **arguments},
    )


def data(workers: int) -> DetectionDataModule:
    train = ShapesDataset(8, 64)
    return DetectionDataModule(train, image_size=64, augmentations=[Mosaic()], batch_size=4, num_workers=workers)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_last_epochs_have_no_mosaic_also_after_resuming(tmp_path: Path, workers: int) -> None:
    module = Watcher()
    saver = ModelCheckpoint(tmp_path, "{epoch}", every_n_epochs=1, save_top_k=-1)
    trainer(tmp_path, callbacks=[CloseMosaic(2), saver]).fit(module, data(workers))
    assert [any(module.mosaics[epoch]) for epoch in range(4)] == [True, True, False, False]
    for epoch in (1, 2):
        module = Watcher()
        resumed = trainer(tmp_path, callbacks=[CloseMosaic(2)], enable_checkpointing=False)
        resumed.fit(module, data(workers), ckpt_path=str(tmp_path / f"epoch={epoch}.ckpt"))
        assert list(module.mosaics) == list(range(epoch + 1, 4))
        assert not any(any(mosaics) for mosaics in module.mosaics.values())


def test_none_leaves_mosaic_on(tmp_path: Path) -> None:
    module = Watcher()
    trainer(tmp_path, callbacks=[CloseMosaic(0)], max_epochs=2, enable_checkpointing=False).fit(module, data(0))
    assert all(any(mosaics) for mosaics in module.mosaics.values())


def test_samplers_of_other_pipelines_are_told_too(tmp_path: Path) -> None:
    dataset = ShapesDataset(8, 64)
    sampler = DetectionSampler(dataset)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]
    trainer(tmp_path, callbacks=[CloseMosaic(3)], enable_checkpointing=False).fit(Counter(), loader)
    assert sampler.mosaic_off_epoch == 1


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="num_epochs=-1 is negative"):
        CloseMosaic(-1)
    endless = trainer(tmp_path, callbacks=[CloseMosaic(1)], max_epochs=-1, max_steps=2, enable_checkpointing=False)
    with pytest.raises(ConfigurationError, match=r"needs to know the last epoch.*set trainer\.max_epochs"):
        endless.fit(Counter(), data(0))
    plain = DataLoader(ShapesDataset(8, 64), batch_size=4, collate_fn=collate)  # type: ignore[arg-type]
    foreign = trainer(tmp_path, callbacks=[CloseMosaic(1)], enable_checkpointing=False)
    with pytest.raises(ConfigurationError, match="finds no sampler with mosaic_off_epoch"):
        foreign.fit(Counter(), plain)
