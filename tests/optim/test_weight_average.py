import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from detlit.callbacks.ema import ema_decay
from detlit.optim import WeightAverage

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ema.json").read_text())


def one_weight(value: float) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


class WithIndex(nn.Module):
    """A parameter, a constant buffer and an integer one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 3))
        self.register_buffer("anchors", torch.rand(5000))
        self.register_buffer("index", torch.arange(5000))


def test_arithmetic_is_that_of_the_golden_numbers() -> None:
    golden = GOLDEN["arithmetic"]
    layer = one_weight(golden["start"])
    average = WeightAverage(layer)
    nn.init.constant_(layer.weight, golden["model_value"])
    values = []
    for step in range(1, 1 + len(golden["values"])):
        average.update(ema_decay(step, 7, golden["decay"], golden["decay_type"], beta=15))
        values.append(average.averaged(layer.state_dict())["weight"].item())
    assert values == pytest.approx(golden["values"], rel=1e-6)


def test_integers_are_the_modules_own_and_constants_do_not_drift() -> None:
    module = WithIndex()
    average = WeightAverage(module)
    for _ in range(50):
        nn.init.uniform_(module.weight)
        module.index.add_(1)
        average.update(0.9)
    averaged = average.averaged(module.state_dict())
    assert torch.equal(averaged["index"], torch.arange(50, 5050))
    assert torch.equal(averaged["anchors"], module.anchors)
    assert not torch.equal(averaged["weight"], module.weight)


def test_bfloat16_weights_have_a_float32_average_that_moves() -> None:
    layer = one_weight(1.0).to(torch.bfloat16)
    average = WeightAverage(layer)
    nn.init.constant_(layer.weight, 1.01)
    for _ in range(500):
        average.update(0.9997)
    target = layer.weight.float().item()
    expected = target + (1.0 - target) * 0.9997**500
    assert average.higher_precision()["weight"].item() == pytest.approx(expected, rel=1e-5)
    assert average.averaged(layer.state_dict())["weight"].dtype == torch.bfloat16


def test_without_the_fused_call_the_averages_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7).double(), nn.Linear(2, 2).to(torch.bfloat16))
    twin = copy.deepcopy(module)
    fused, plain = WeightAverage(module), WeightAverage(twin)
    for _ in range(3):
        for parameter, other in zip(module.parameters(), twin.parameters(), strict=True):
            nn.init.uniform_(parameter)
            other.data.copy_(parameter)
        fused.update(0.7)
        with monkeypatch.context() as patch:
            patch.delattr(torch, "_foreach_lerp_")
            plain.update(0.7)
    theirs = plain.averaged(twin.state_dict())
    assert all(torch.equal(value, theirs[name]) for name, value in fused.averaged(module.state_dict()).items())


def test_float64_stays_float64() -> None:
    layer = one_weight(1.0).double()
    assert WeightAverage(layer).averaged(layer.state_dict())["weight"].dtype == torch.float64


def test_mixed_dtypes_are_all_averaged() -> None:
    module = nn.Sequential(one_weight(1.0), one_weight(1.0).to(torch.bfloat16), one_weight(1.0).double())
    average = WeightAverage(module)
    for layer in module:
        nn.init.constant_(layer.weight, 3.0)
    average.update(0.5)
    assert [value.item() for value in average.averaged(module.state_dict()).values()] == [2.0, 2.0, 2.0]


def test_swap_keeps_storage_and_is_undone() -> None:
    module = WithIndex()
    average = WeightAverage(module)
    nn.init.zeros_(module.weight)
    average.update(0.5)
    trained, addresses = copy.deepcopy(module.state_dict()), [p.data_ptr() for p in module.state_dict().values()]
    expected = average.averaged(module.state_dict())["weight"].clone()

    average.swap_in()
    average.swap_in()
    assert torch.equal(module.weight, expected)
    assert [p.data_ptr() for p in module.state_dict().values()] == addresses
    assert torch.equal(average.raw(module.state_dict())["weight"], trained["weight"])

    average.swap_out()
    average.swap_out()
    assert all(torch.equal(value, trained[name]) for name, value in module.state_dict().items())
    assert [p.data_ptr() for p in module.state_dict().values()] == addresses


def replace_weight(module: nn.Sequential) -> None:
    module[0].weight = nn.Parameter(torch.full((1, 1), 8.0))


def replace_layer(module: nn.Sequential) -> None:
    module[0] = one_weight(8.0)


def widen_layer(module: nn.Sequential) -> None:
    module[0] = nn.Linear(1, 2, bias=False)
    nn.init.constant_(module[0].weight, 8.0)


@pytest.mark.parametrize("change", [replace_weight, replace_layer])
def test_replaced_parameters_are_followed(change: object) -> None:
    module = nn.Sequential(one_weight(2.0), one_weight(2.0))
    average = WeightAverage(module)
    change(module)  # type: ignore[operator]
    average.update(0.5)
    assert [value.item() for value in average.averaged(module.state_dict()).values()] == [5.0, 2.0]
    average.swap_in()
    assert module[0].weight.item() == 5.0


def test_added_and_reshaped_parameters_start_from_their_values() -> None:
    module = nn.Sequential(one_weight(2.0))
    average = WeightAverage(module)
    widen_layer(module)
    module.append(one_weight(3.0))
    average.update(0.5)
    averaged = average.averaged(module.state_dict())
    assert averaged["0.weight"].tolist() == [[8.0], [8.0]]
    assert averaged["1.weight"].item() == 3.0


def test_state_after_a_replacement_without_an_update() -> None:
    module = nn.Sequential(one_weight(2.0))
    average = WeightAverage(module)
    widen_layer(module)
    assert average.averaged(module.state_dict())["0.weight"].shape == (2, 1)


def test_weights_moved_to_other_storage_are_still_written() -> None:
    layer = one_weight(1.0)
    average = WeightAverage(layer)
    nn.init.constant_(layer.weight, 3.0)
    average.update(0.5)
    layer.weight.data = layer.weight.data.clone()  # what Module.to does when the device changes
    average.copy_to_module()
    assert layer.weight.item() == 2.0


def test_given_values_are_copied() -> None:
    layer = one_weight(1.0)
    average = WeightAverage(layer, layer.state_dict())
    nn.init.constant_(layer.weight, 3.0)
    average.update(0.5)
    assert layer.weight.item() == 3.0


def test_averages_have_the_memory_format_of_the_weights() -> None:
    layer = nn.Conv2d(3, 4, 3)
    stored = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.to(memory_format=torch.channels_last)
    average = WeightAverage(layer, stored)
    assert average.averaged(layer.state_dict())["weight"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_that_are_recomputed_with_the_averages_become_averages(dtype: torch.dtype) -> None:
    layer = nn.BatchNorm1d(1).to(dtype)
    average = WeightAverage(layer)
    nn.init.constant_(layer.running_mean, 4.0)
    average.update(0.7)
    average.swap_in()
    mean, variance = average.averaged(layer.state_dict())["running_mean"], layer.running_var.clone()
    assert layer.running_mean.item() == mean.item() == torch.tensor(1.2, dtype=dtype).item()
    nn.init.constant_(layer.running_mean, 3.0)
    nn.init.constant_(layer.weight, 9.0)
    assert average.averaged(layer.state_dict())["running_mean"].item() == 3.0
    nn.init.constant_(layer.running_mean, 2.0)
    average.swap_out()
    assert layer.running_mean.item() == 4.0
    assert average.averaged(layer.state_dict())["running_mean"].item() == 2.0
    assert average.averaged(layer.state_dict())["weight"].item() == 1.0  # parameters are averaged alone
    assert layer.running_var == variance
    average.update(0.5)
    average.swap_in()
    assert layer.running_mean.item() == 3.0


def test_averages_of_buffers_that_nobody_wrote_to_are_not_rounded() -> None:
    layer = nn.BatchNorm1d(1).to(torch.bfloat16)
    average = WeightAverage(layer)
    nn.init.constant_(layer.running_mean, 4.0)
    average.update(0.7)
    average.swap_in()
    average.swap_out()
    assert average.higher_precision()["running_mean"].item() == pytest.approx(1.2, rel=1e-6)
