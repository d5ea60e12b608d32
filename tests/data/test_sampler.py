"""The training sampler, alone and over ranks."""

from pathlib import Path

import pytest
import torch
from torch import distributed

from detlit.data import DetectionSampler, SampleIndex
from tests.processes import run_in_processes


def test_indices_carry_the_epoch() -> None:
    sampler = DetectionSampler(range(10))
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert all(isinstance(index, SampleIndex) and index.epoch == epoch for index in drawn)
        assert sorted(index.dataset_index for index in drawn) == list(range(10))
        epochs.append([index.dataset_index for index in drawn])
    assert epochs[0] != epochs[1]


def test_the_order_follows_from_seed_and_epoch() -> None:
    assert list(DetectionSampler(range(10), seed=1)) == list(DetectionSampler(range(10), seed=1))
    assert list(DetectionSampler(range(10), seed=1)) != list(DetectionSampler(range(10), seed=2))
    assert [index.dataset_index for index in DetectionSampler(range(4), shuffle=False)] == [0, 1, 2, 3]


def write_indices(rank: int, folder: str) -> None:
    assert distributed.get_world_size() == 2
    sampler = DetectionSampler(range(11))
    sampler.set_epoch(3)
    torch.save([tuple(index) for index in sampler], Path(folder) / f"{rank}.pt")


@pytest.mark.distributed
def test_ranks_share_an_epoch_evenly(tmp_path: Path) -> None:
    run_in_processes(write_indices, 2, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert len(first) == len(second) == 5
    assert len({index[0] for index in first + second}) == 10
    assert {index[1] for index in first + second} == {3}
