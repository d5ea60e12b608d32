import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

import detlit
from detlit.callbacks import Checkpoint, LargestBatchSize
from detlit.callbacks.batch_size import crowded_batch, largest_batch_size
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, assert_same, quiet_trainer, weights
from tests.tiny import tiny_detector


# --------------------------------------------------------------------------------------------------- the search
class Memory:
    """A device on which so many images fit."""

    def __init__(self, limit: int, error: type[Exception] = torch.cuda.OutOfMemoryError) -> None:
        self.limit, self.error = limit, error
        self.tried: list[int] = []

    def __call__(self, batch_size: int) -> None:
        self.tried.append(batch_size)
        if batch_size > self.limit:
            raise self.error("CUDA out of memory. Tried to allocate 2 GiB.")


@pytest.mark.parametrize("most", [1, 2, 7, 8, 40])
def test_the_largest_is_found_whatever_it_is(most: int) -> None:
    for limit in range(most + 3):
        assert largest_batch_size(Memory(limit), most) == min(limit, most)


def test_it_doubles_then_halves_the_interval() -> None:
    memory = Memory(21)
    assert largest_batch_size(memory, 1000) == 21
    assert memory.tried == [2, 4, 8, 16, 32, 24, 20, 22, 21]
    memory = Memory(1000)
    assert largest_batch_size(memory, 20) == 20
    assert memory.tried == [2, 4, 8, 16, 20]


def test_other_errors_are_not_taken_for_a_full_memory() -> None:
    with pytest.raises(KeyError):
        largest_batch_size(Memory(3, KeyError), 10)
    with pytest.raises(RuntimeError, match="shapes"):
        largest_batch_size(lambda _: (_ for _ in ()).throw(RuntimeError("shapes differ")), 10)


def test_a_crowded_batch_has_all_its_boxes_within_the_images() -> None:
    batch = crowded_batch(3, (64, 96), 50, 4)
    assert batch.images.shape == (3, 3, 64, 96)
    assert batch.counts == [50, 50, 50]
    assert torch.bincount(batch.image_index).tolist() == [50, 50, 50]
    assert batch.labels.unique().tolist() == [0, 1, 2, 3]
    sides = batch.boxes[:, 2:] - batch.boxes[:, :2]
    assert batch.boxes.min() >= 0
    assert (batch.boxes[:, 2:] <= torch.tensor([96.0, 64.0])).all()
    assert (sides >= 8 - 1e-4).all()
    assert (sides <= torch.tensor([48.0, 32.0]) + 1e-4).all()
    assert [len(target["boxes"]) for target in batch.targets] == [50, 50, 50]


# ------------------------------------------------------------------------------------------------- the callback
class Data(detlit.DetectionDataModule):
    """Twelve small images."""

    def __init__(self, batch_size: int = 2) -> None:
        super().__init__(
            train=detlit.ShapesDataset(num_images=12, image_size=64),
            image_size=64,
            multi_scale=(0.5, 1.5),
            batch_size=batch_size,
            num_workers=0,
        )


class Limited(detlit.DetectionModule):
    """A detector on a device on which so many images fit; notes the batches that it sees."""

    limit = 5

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen = [*getattr(self, "seen", []), (tuple(batch.images.shape), max(batch.counts))]
        if len(batch) > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return super().training_step(batch, batch_idx)


def module(data: Data) -> Limited:
    torch.manual_seed(0)
    return Limited(tiny_detector(data.num_classes), optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))


def fit(folder: Path, callback: Callback | None, data: Data, **arguments: Any) -> Limited:
    """Train an epoch."""
    limited = module(data)
    callbacks = [*([] if callback is None else [callback]), *Checkpoint(dirpath=folder).callbacks()]
    trainer = quiet_trainer(folder, callbacks=callbacks, **{"max_epochs": 1, **arguments})
    torch.manual_seed(3)
    trainer.fit(limited, data, ckpt_path=folder / "last.ckpt" if "max_epochs" in arguments else None)
    return limited


def test_training_has_the_batch_size_that_was_found_and_is_the_same_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, search = Data(), LargestBatchSize(num_objects=40, margin=0.2, most=100)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        limited = fit(tmp_path / "found", search, data)
    assert search.batch_size == data.batch_size == 4  # 80 % of 5
    assert "batch size 4: the largest that fits is 5; data.batch_size=4 sets it" in caplog.text
    worst = [shape for shape, objects in limited.seen if objects == 40]
    assert [shape[0] for shape in worst] == [2, 2, 4, 4, 8, 6, 5, 5]
    assert {shape[2:] for shape in worst} == {(96, 96)}
    assert [shape[0] for shape, _ in limited.seen[len(worst) :]] == [4] * 3
    told = fit(tmp_path / "told", None, Data(batch_size=4))
    assert_same(weights(limited), weights(told))


def test_without_a_margin_and_with_fewer_images_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limited, "limit", 100)
    data = Data()
    fit(tmp_path, LargestBatchSize(num_objects=3, margin=0.0, most=100), data)
    assert data.batch_size == 12


def test_a_resumed_run_goes_on_with_its_batch_size(tmp_path: Path) -> None:
    fit(tmp_path, LargestBatchSize(num_objects=3, most=3, margin=0.0), Data())
    data, search = Data(), LargestBatchSize(num_objects=3, most=2, margin=0.0)
    resumed = fit(tmp_path, search, data, max_epochs=2)
    assert search.batch_size == data.batch_size == 3
    assert [shape[0] for shape, _ in resumed.seen[-4:]] == [3] * 4


# ------------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_objects": -1}, "num_objects=-1 is negative"),
        ({"margin": 1.0}, "margin=1.0 is no share"),
        ({"most": 0}, "most=0 leaves no batch size"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LargestBatchSize(**arguments)


def test_a_cpu_is_refused_unless_a_limit_is_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot tell when the memory of a cpu runs out"):
        fit(tmp_path, LargestBatchSize(), Data())


def test_a_detector_that_does_not_fit_at_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limited, "limit", 0)
    with pytest.raises(ConfigurationError, match="not even one image fits"):
        fit(tmp_path, LargestBatchSize(most=4), Data())


def test_data_without_a_batch_size_are_refused(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=[LargestBatchSize(most=4)])
    with pytest.raises(ConfigurationError, match="needs a data module, or a module, whose batch_size"):
        trainer.fit(TinyModule())


def test_several_devices_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Trainer, "world_size", 2)
    search, data = LargestBatchSize(most=4), Data()
    trainer = quiet_trainer(tmp_path)
    trainer.datamodule = data  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="searches on one device and there are 2"):
        search.setup(trainer, LightningModule(), "fit")
