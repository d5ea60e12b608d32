"""The training sampler, alone and over ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from detlit.data import DetectionSampler, SampleIndex
from detlit.data.sampler import repeat_factors
from detlit.errors import ConfigurationError
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


# ------------------------------------------------------------------------------------------ what indices carry
def test_mosaic_is_off_from_an_epoch_on() -> None:
    sampler = DetectionSampler(range(4))
    sampler.mosaic_off_epoch = 2
    asked = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        asked.append({index.mosaic for index in sampler})
    assert asked == [{True}, {True}, {False}, {False}]


def test_each_batch_has_one_size_and_knows_its_images() -> None:
    sizes = [(64, 64), (96, 96), (128, 128)]
    sampler = DetectionSampler(range(42), sizes=sizes, batch_size=4)
    drawn = list(sampler)
    batches = [drawn[first : first + 4] for first in range(0, 42, 4)]
    assert all(len({index.size for index in batch}) == 1 for batch in batches)
    assert {batch[0].size for batch in batches} == set(sizes)
    assert all({index.batch for index in batch} == {tuple(i.dataset_index for i in batch)} for batch in batches)


@pytest.mark.parametrize("first", [0, 1, 7, 8, 20])
def test_an_epoch_may_begin_in_the_middle(first: int) -> None:
    def sampler() -> DetectionSampler:
        factors = np.array([1.0, 2.5, 1.0, 1.3] * 5)
        made = DetectionSampler(range(20), factors=factors, sizes=[(64, 64), (96, 96)], batch_size=4)
        made.set_epoch(2)
        return made

    whole, resumed = sampler(), sampler()
    resumed.start_at(2, first)
    assert list(resumed) == list(whole)[first:]
    resumed.set_epoch(3)
    whole.set_epoch(3)
    assert list(resumed) == list(whole)


# ------------------------------------------------------------------------------------------------ repetition
def test_repeat_factors_by_hand() -> None:
    labels = [np.array(classes, dtype=np.int64) for classes in ([0], [0, 0], [0, 1], [], [0], [0], [0], [0])]
    factors = repeat_factors(labels, threshold=0.5)  # class 0 is in 7 of 8 images, class 1 in one: sqrt(0.5 / 0.125)
    assert factors.tolist() == [1, 1, 2, 1, 1, 1, 1, 1]
    assert repeat_factors(labels, threshold=0.1).tolist() == [1] * 8
    assert repeat_factors([np.zeros(0, dtype=np.int64)] * 2, threshold=0.5).tolist() == [1, 1]
    with pytest.raises(ConfigurationError, match="repeat_threshold=0 is no part of the images"):
        repeat_factors(labels, threshold=0)


def test_images_are_repeated_as_often_as_their_factor_on_average() -> None:
    factors = np.array([1.0, 1.0, 2.5, 1.2, 1.0, 3.0, 1.75])
    sampler = DetectionSampler(range(7), factors=factors)
    assert len(sampler) == 11  # the sum is 11.45
    counts = np.zeros(7)
    for epoch in range(400):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert len(drawn) == 11
        counts += np.bincount([index.dataset_index for index in drawn], minlength=7)
        assert len({(index.dataset_index, index.repeat) for index in drawn}) == 11
    np.testing.assert_allclose(counts / 400, factors * 11 / 11.45, atol=0.12)


def test_without_factors_each_image_is_drawn_once() -> None:
    drawn = list(DetectionSampler(range(30), factors=np.ones(30)))
    assert sorted(index.dataset_index for index in drawn) == list(range(30))
    assert {index.repeat for index in drawn} == {0}
