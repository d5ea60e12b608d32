"""Layers that round as integers do."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from detlit.models.layers.fusion import fold_batch_norm
from detlit.quantization.layers import ActivationQuantizer, QuantizedOutput, quantize_convolution
from tests.reference.quantization import to_grid


def quantizer(low: float, high: float, symmetric: bool = False) -> ActivationQuantizer:
    result = ActivationQuantizer(symmetric)
    result.set_range(torch.tensor(low), torch.tensor(high))
    return result


def test_unsigned_levels_by_hand() -> None:
    levels = quantizer(-1.0, 1.55)  # steps of 0.01, zero at level 100
    x = torch.tensor([-5.0, -1.0, -0.004, 0.0, 0.006, 1.234, 9.0])
    assert float(levels.scale) == pytest.approx(0.01)
    assert float(levels.zero_point) == pytest.approx(100)
    torch.testing.assert_close(levels(x), torch.tensor([-1.0, -1.0, 0.0, 0.0, 0.01, 1.23, 1.55]))


def test_signed_levels_by_hand() -> None:
    levels = quantizer(-0.2, 1.27, symmetric=True)
    x = torch.tensor([-9.0, -1.0, 0.004, 0.006, 9.0])
    assert float(levels.zero_point) == 0
    torch.testing.assert_close(levels(x), torch.tensor([-1.28, -1.0, 0.0, 0.01, 1.27]))


@given(st.floats(-10, 0), st.floats(0.1, 10), st.lists(st.floats(-20, 20, width=32), min_size=1), st.booleans())
def test_levels_are_those_of_the_slow_twin(low: float, high: float, values: list[float], symmetric: bool) -> None:
    levels = quantizer(low, high, symmetric)
    scale, zero_point = float(levels.scale), round(float(levels.zero_point))
    rounded = levels(torch.tensor(values)).tolist()
    for value, found in zip(values, rounded, strict=True):
        expected = to_grid(value, scale, zero_point, levels.lowest, levels.highest)
        assert found == pytest.approx(expected, abs=1e-4) or abs(abs(found - expected) - scale) < 1e-4  # a tie


def test_zero_is_exact_and_ranges_come_back() -> None:
    levels = quantizer(-0.2785, 7.31)
    assert levels(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert [float(value) for value in levels.range] == pytest.approx([-0.2785, 7.31], rel=1e-5)


def test_without_a_range_nothing_is_rounded() -> None:
    x = torch.rand(4)
    assert ActivationQuantizer(False)(x) is x


def test_gradients_pass_inside_and_stop_outside() -> None:
    x = torch.tensor([-2.0, -0.5, 0.3, 5.0], requires_grad=True)
    quantizer(-1.0, 1.0)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_the_range_follows_training_batches_only() -> None:
    levels = quantizer(-1.0, 1.0)
    levels.momentum = 0.1
    levels.eval()(torch.tensor([-2.0, 6.0]))
    assert [float(value) for value in levels.range] == pytest.approx([-1.0, 1.0])
    levels.train()(torch.tensor([-2.0, 6.0]))
    assert [float(value) for value in levels.range] == pytest.approx([-1.1, 1.5])


def test_a_slow_range_does_not_get_stuck() -> None:
    levels = quantizer(-1.0, 1.0).train()
    levels.momentum = 0.001
    for _ in range(3000):
        levels(torch.tensor([-0.5, 1.0]))
    assert float(levels.range[0]) == pytest.approx(-0.525, abs=5e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_in_full(dtype: torch.dtype) -> None:
    x = torch.rand(100).to(dtype)
    levels = quantizer(0.0, 1.0)
    assert torch.equal(levels(x), levels(x.float()).to(dtype))


def test_state_copies_and_pickles() -> None:
    part = QuantizedOutput(nn.ReLU(), quantizer(0.0, 3.0))
    x = torch.randn(50)
    for twin in (copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert torch.equal(twin(x), part(x))
    fresh = QuantizedOutput(nn.ReLU(), ActivationQuantizer(False))
    fresh.load_state_dict(part.state_dict())
    assert torch.equal(fresh(x), part(x))


@pytest.mark.parametrize(("conv", "axis"), [(nn.Conv2d(3, 5, 3), 0), (nn.ConvTranspose2d(5, 3, 2, 2), 1)])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_have_as_many_levels_in_each_channel(conv: nn.Module, axis: int, bits: int) -> None:
    conv = copy.deepcopy(conv)
    before = conv.weight.detach().clone()
    names = list(conv.state_dict())
    rounded = quantize_convolution(conv, bits).rounded_weight().detach()
    assert list(conv.state_dict()) == names
    assert torch.equal(conv.weight, before)
    for channel, true in zip(rounded.unbind(axis), before.unbind(axis), strict=True):
        scale = float(true.abs().max()) / (2 ** (bits - 1) - 1)
        expected = [
            to_grid(value, scale, 0, -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) for value in true.flatten().tolist()
        ]
        torch.testing.assert_close(channel.flatten(), torch.tensor(expected), rtol=0, atol=1e-6)


def test_gradients_reach_the_weight_as_if_it_were_not_rounded() -> None:
    conv = nn.Conv2d(2, 3, 1)
    twin = copy.deepcopy(conv)
    x = torch.randn(1, 2, 4, 4)
    quantize_convolution(conv, 4)(x).sum().backward()
    twin(x).sum().backward()
    torch.testing.assert_close(conv.weight.grad, twin.weight.grad)


def test_a_channel_of_zeros_stays_zero() -> None:
    conv = nn.Conv2d(2, 2, 1)
    nn.init.zeros_(conv.weight[0])
    assert quantize_convolution(conv, 8).rounded_weight()[0].tolist() == [[[0.0]], [[0.0]]]


def test_folding_a_normalization_changes_no_integer() -> None:
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6).eval()
    bn.running_var.uniform_(0.1, 9.0)  # type: ignore[union-attr]
    nn.init.uniform_(bn.weight, -2, 2)
    rounded = quantize_convolution(conv.eval(), 8)
    folded = fold_batch_norm(conv, bn)
    folded.store_integers()  # type: ignore[operator]
    rounded.store_integers()
    signs = bn.weight.detach().sign().view(-1, 1, 1, 1)
    assert torch.equal(folded.weight_integers, rounded.weight_integers * signs)


def test_the_stored_integers_are_the_rounded_weight() -> None:
    conv = quantize_convolution(nn.Conv2d(4, 6, 3), 8)
    rounded = conv.rounded_weight().detach()
    conv.store_integers()
    assert conv.weight_integers.dtype == torch.int8
    torch.testing.assert_close(conv.weight_integers * conv.weight_scale.view(-1, 1, 1, 1), rounded)
