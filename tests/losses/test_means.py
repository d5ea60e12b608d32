"""Mean losses over an evaluation."""

import pytest
import torch

from detlit.losses.means import MeanLosses
from detlit.structures import LossOutput


def test_each_image_counts_once_whatever_the_size_of_its_batch() -> None:
    means = MeanLosses()
    for total, size in ((1.0, 3), (5.0, 1)):
        means.update(LossOutput(torch.tensor(total), {"loss_cls": torch.tensor(total / 2)}), size)
    assert means.compute() == {"loss": pytest.approx(2.0), "loss_cls": pytest.approx(1.0)}


def test_nothing_seen_gives_nothing() -> None:
    assert MeanLosses().compute() == {}
