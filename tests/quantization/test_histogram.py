"""Counts of values, in bins whose width follows the largest one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detlit.errors import ConfigurationError
from detlit.quantization.histogram import HALF, Histogram

values = st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=40)


def collected(*parts: list[float]) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.collect(torch.tensor(part))
    return histogram


def test_bins_are_as_wide_as_the_largest_value_needs() -> None:
    histogram = collected([0.0, 0.0, 1.5, -0.25])
    assert histogram.exponent == -11  # 1.5 < 2 = 4096 * 2**-11
    assert (histogram.low, histogram.high, histogram.zeros) == (-0.25, 1.5, 2)
    occupied = histogram.counts.nonzero()[:, 0] - HALF
    assert occupied.tolist() == [-512, 0, 3072]
    assert histogram.counts[occupied + HALF].tolist() == [1, 2, 1]
    assert histogram.centres[HALF + 3072] == 1.5 + 2.0**-12


def test_larger_values_join_pairs_of_bins() -> None:
    histogram = collected([1.5, -0.25, 0.001], [3.9])
    assert histogram.exponent == -10
    assert (histogram.counts.nonzero()[:, 0] - HALF).tolist() == [-256, 1, 1536, 3993]


@given(values, values)
def test_the_order_and_the_parts_do_not_matter(first: list[float], second: list[float]) -> None:
    whole, merged = collected(first + second), collected(second)
    merged.merge(collected(first))
    assert torch.equal(whole.counts, merged.counts)
    assert (whole.exponent, whole.zeros, whole.low, whole.high) == (
        merged.exponent,
        merged.zeros,
        merged.low,
        merged.high,
    )


@given(values)
def test_every_value_is_in_its_bin(numbers: list[float]) -> None:
    histogram = collected(numbers)
    width = 2.0 ** (histogram.exponent or 0)
    expected = torch.zeros_like(histogram.counts)
    for number in numbers:
        expected[math.floor(number / width) + HALF] += 1
    assert torch.equal(histogram.counts, expected)


def test_zeros_alone_are_counted() -> None:
    histogram = collected([0.0, 0.0])
    assert (histogram.exponent, histogram.zeros, int(histogram.counts[HALF])) == (None, 2, 2)
    histogram.merge(collected([8.0]))
    assert (histogram.zeros, int(histogram.counts.sum())) == (2, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ConfigurationError, match="not finite on the calibration images"):
        collected([1.0, bad])
