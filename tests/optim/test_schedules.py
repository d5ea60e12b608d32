import functools
import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from detlit.errors import ConfigurationError
from detlit.optim import WarmupCosine, WarmupExponential, WarmupPoly, WarmupSchedule, WarmupStep, with_total_steps


def optimizer(*rates: float) -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def trace(schedule: WarmupSchedule, steps: int) -> list[list[float]]:
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


class Own(WarmupSchedule):
    """A schedule of one's own."""

    def shape(self, progress: float) -> float:
        return 1 - progress**2


SCHEDULES = [WarmupCosine, WarmupPoly, WarmupExponential, WarmupStep, Own]


@pytest.mark.parametrize(
    ("schedule", "options", "expected"),
    [
        (WarmupPoly, {}, [1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0]),
        (WarmupPoly, {"power": 2.0, "final_ratio": 0.5}, [1, 0.78125, 0.625, 0.53125, 0.5]),
        (WarmupExponential, {"final_ratio": 0.0625}, [1, 0.5, 0.25, 0.125, 0.0625]),
        (WarmupStep, {}, [1, 1, 1, 0.1, 0.01]),
        (WarmupStep, {"milestones": [0.25, 0.75], "ratio": 0.5}, [1, 0.5, 0.5, 0.25, 0.25]),
        (WarmupStep, {"milestones": []}, [1, 1, 1, 1, 1]),
        (Own, {}, [1, 0.9375, 0.75, 0.4375, 0]),
    ],
)
def test_exact_rates_of_each_shape(
    schedule: type[WarmupSchedule], options: dict[str, Any], expected: list[float]
) -> None:
    rates = trace(schedule(optimizer(2.0), total_steps=10, warmup_steps=3, cooldown_steps=2, **options), 12)
    assert [rate / 2 for (rate,) in rates] == pytest.approx([0.25, 0.5, 0.75, *expected, *[expected[-1]] * 4])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_cooldown_is_a_share_of_the_run_or_a_number_of_steps(schedule: type[WarmupSchedule]) -> None:
    by_share = trace(schedule(optimizer(1.0), total_steps=40, cooldown_steps=0.25), 40)
    assert by_share == trace(schedule(optimizer(1.0), total_steps=40, cooldown_steps=10), 40)
    assert by_share[28] != by_share[29] or schedule is WarmupStep
    assert len({rate for (rate,) in by_share[29:]}) == 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_in_epochs_is_one_in_steps(schedule: type[WarmupSchedule]) -> None:
    by_epochs = trace(schedule(optimizer(1.0), total_steps=40, warmup_epochs=1.5, total_epochs=10), 40)
    assert by_epochs == trace(schedule(optimizer(1.0), total_steps=40, warmup_steps=6), 40)


def test_the_length_in_steps_and_epochs_is_filled_in_where_it_is_not_given() -> None:
    factory = with_total_steps(functools.partial(WarmupCosine, warmup_epochs=2), lambda: 40, lambda: 10)
    assert trace(factory(optimizer(1.0)), 40) == trace(WarmupCosine(optimizer(1.0), 40, 8), 40)  # type: ignore[arg-type]
    given = functools.partial(WarmupCosine, total_steps=20, total_epochs=5)
    assert with_total_steps(given, lambda: 40, lambda: 10) is given
    endless = with_total_steps(functools.partial(WarmupCosine, warmup_epochs=2), lambda: 40, lambda: -1)
    with pytest.raises(ConfigurationError, match=r"warmup_epochs=2 needs the epochs of the run, .* trainer.max_epochs"):
        endless(optimizer(1.0))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stop", [1, 3, 4, 9])
def test_resume_is_exact(stop: int, schedule: type[WarmupSchedule]) -> None:
    arguments: dict[str, Any] = {"total_steps": 12, "warmup_steps": 4}
    straight = trace(schedule(optimizer(1.0, 0.3), **arguments), 12)
    first = schedule(optimizer(1.0, 0.3), **arguments)
    trace(first, stop)
    second = schedule(optimizer(1.0, 0.3), **arguments)
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
        ({"total_steps": 50, "cooldown_steps": 1.5}, "cooldown_steps=1.5 is neither"),
        (
            {"total_steps": 50, "warmup_steps": 20, "cooldown_steps": 30},
            "takes 20 optimizer steps and the cool-down 30",
        ),
        (
            {"total_steps": 50, "warmup_steps": 5, "warmup_epochs": 3},
            "two warm-ups, warmup_steps=5 and warmup_epochs=3",
        ),
        ({"total_steps": 50, "warmup_epochs": 3}, "warmup_epochs=3 needs the epochs of the run"),
        ({"total_steps": 50, "warmup_epochs": -1, "total_epochs": 5}, "warmup_epochs=-1 is before the start"),
        ({"total_steps": 50, "warmup_epochs": 5, "total_epochs": 5}, "takes 50 optimizer steps and the whole run 50"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WarmupCosine(optimizer(1.0), **arguments)


@pytest.mark.parametrize(
    ("schedule", "option", "message"),
    [
        (WarmupPoly, {"power": 0.0}, "power=0.0 does not lower the learning rate"),
        (WarmupPoly, {"final_ratio": -0.1}, "final_ratio=-0.1 is no fraction"),
        (WarmupExponential, {"final_ratio": 0.0}, "final_ratio=0 is never reached"),
        (WarmupStep, {"milestones": [0.5, 60]}, "milestone=60 is no fraction"),
        (WarmupStep, {"ratio": 2.0}, "ratio=2.0 is no fraction"),
    ],
)
def test_bad_shapes_are_refused_by_name(schedule: type[WarmupSchedule], option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        schedule(optimizer(1.0), total_steps=10, **option)
