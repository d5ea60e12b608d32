import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from detlit.errors import ConfigurationError
from detlit.optim import WarmupCosine


def optimizer(*rates: float) -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def trace(schedule: WarmupCosine, steps: int) -> list[list[float]]:
    """Return the learning rates in force at each of the next optimizer steps."""
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return rates


def test_exact_rates_of_a_short_run() -> None:
    schedule = WarmupCosine(optimizer(1.0), total_steps=8, warmup_steps=3, final_ratio=0.2)
    cosine = [0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(5)]
    assert [rate for (rate,) in trace(schedule, 8)] == pytest.approx([0.25, 0.5, 0.75, *cosine])
    assert cosine[0] == 1.0
    assert cosine[-1] == pytest.approx(0.2)


def test_there_is_no_plateau_and_no_jump() -> None:
    rates = [rate for (rate,) in trace(WarmupCosine(optimizer(1.0), total_steps=1000, warmup_steps=100), 1000)]
    changes = [after - before for before, after in itertools.pairwise(rates)]
    assert all(change > 0 for change in changes[:100])
    assert all(change < 0 for change in changes[100:])
    assert max(map(abs, changes)) < 0.01


def test_each_group_keeps_its_own_peak() -> None:
    rates = trace(WarmupCosine(optimizer(1.0, 0.1), total_steps=10, warmup_steps=2), 10)
    assert all(small == pytest.approx(large / 10) for large, small in rates)
    assert rates[2] == [1.0, 0.1]


def test_without_warmup_the_first_step_is_at_the_peak() -> None:
    assert trace(WarmupCosine(optimizer(1.0), total_steps=4, warmup_steps=0), 1) == [[1.0]]


def test_a_share_of_the_run_is_a_number_of_steps() -> None:
    by_share = trace(WarmupCosine(optimizer(1.0), total_steps=40, warmup_steps=0.25), 40)
    assert by_share == trace(WarmupCosine(optimizer(1.0), total_steps=40, warmup_steps=10), 40)


def test_past_the_end_the_rate_stays() -> None:
    rates = trace(WarmupCosine(optimizer(1.0), total_steps=5, warmup_steps=1, final_ratio=0.1), 8)
    assert [rate for (rate,) in rates[4:]] == pytest.approx([0.1] * 4)


@pytest.mark.parametrize("stop", [1, 3, 4, 9])
def test_resume_is_exact(stop: int) -> None:
    arguments: dict[str, Any] = {"total_steps": 12, "warmup_steps": 4}
    straight = trace(WarmupCosine(optimizer(1.0, 0.3), **arguments), 12)
    first = WarmupCosine(optimizer(1.0, 0.3), **arguments)
    trace(first, stop)
    second = WarmupCosine(optimizer(1.0, 0.3), **arguments)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert trace(second, 12 - stop) == straight[stop:]


def test_resuming_with_more_steps_follows_the_longer_cosine() -> None:
    first = WarmupCosine(optimizer(1.0), total_steps=10, warmup_steps=2)
    trace(first, 5)
    second = WarmupCosine(optimizer(1.0), total_steps=20, warmup_steps=2)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    longer = trace(WarmupCosine(optimizer(1.0), total_steps=20, warmup_steps=2), 20)
    assert trace(second, 15)[1:] == longer[6:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total_steps": None}, "give the number of optimizer steps"),
        ({"total_steps": 50, "warmup_steps": 50}, "takes 50 optimizer steps and the whole run 50"),
        ({"total_steps": 50, "warmup_steps": 1000}, "takes 1000 optimizer steps and the whole run 50"),
        ({"total_steps": 50, "warmup_steps": 1.5}, "warmup_steps=1.5 is neither"),
        ({"total_steps": 50, "warmup_steps": -1}, "warmup_steps=-1 is neither"),
        ({"total_steps": 50, "final_ratio": 1.5}, "final_ratio=1.5"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WarmupCosine(optimizer(1.0), **arguments)
