"""The choice of a range."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.quantization.histogram import Histogram
from detlit.quantization.ranges import Method, choose_range, range_error
from tests.reference.quantization import mean_squared_error


def histogram_of(values: Tensor) -> Histogram:
    histogram = Histogram()
    histogram.collect(values)
    return histogram


def bell(count: int = 20_000) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def test_minmax_clips_nothing() -> None:
    assert choose_range(histogram_of(torch.tensor([-1.0, 3.0])), "minmax") == (-1.0, 3.0)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_zero_is_always_inside(method: Method) -> None:
    low, high = choose_range(histogram_of(torch.rand(1000) + 5), method)
    assert low == 0.0
    assert 5 <= high <= 6
    low, high = choose_range(histogram_of(-torch.rand(1000) - 5), method)
    assert -6 <= low <= -5
    assert high == 0.0


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_a_symmetric_range_is_symmetric(method: Method) -> None:
    low, high = choose_range(histogram_of(bell() * torch.tensor([1.0, 3.0]).repeat(10_000)), method, symmetric=True)
    assert high > 0
    assert low == -high


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_nothing_but_zeros_has_an_empty_range(method: Method) -> None:
    assert choose_range(histogram_of(torch.zeros(10)), method) == (0.0, 0.0)


def test_percentile_clips_the_share_it_is_told_to() -> None:
    values = torch.arange(1, 10_001) / 1000.0
    low, high = choose_range(histogram_of(values), "percentile", percentile=99.0)
    assert low == 0.0
    assert int((values > high).sum()) == pytest.approx(100, abs=3)
    both = torch.cat((values, -values))
    low, high = choose_range(histogram_of(both), "percentile", percentile=99.0)
    assert int((both > high).sum()) == pytest.approx(100, abs=3)
    assert int((both < low).sum()) == pytest.approx(100, abs=3)


def test_mse_finds_the_upper_end_that_the_slow_search_finds() -> None:
    """A single value of 3 among two million up to 1: worth clipping, as the others get finer steps."""
    values = torch.rand(200, generator=torch.Generator().manual_seed(0))
    low, high = choose_range(histogram_of(torch.cat((values.repeat(10_000), torch.tensor([3.0])))), "mse")

    def error(high: float) -> float:
        return 2e6 * mean_squared_error(values.tolist(), 0.0, high, False) + (3.0 - high) ** 2

    shares = [3.0 * step / 80 for step in range(1, 81)]
    assert low == 0.0
    assert error(high) <= 1.05 * min(map(error, shares))
    assert error(high) < 0.5 * error(3.0)


@given(st.integers(0, 1000), st.floats(1, 50), st.booleans())
def test_mse_is_never_worse_than_clipping_nothing(seed: int, outlier: float, symmetric: bool) -> None:
    values = torch.randn(300, generator=torch.Generator().manual_seed(seed))
    values[0] = outlier
    histogram = histogram_of(values)
    chosen, whole = choose_range(histogram, "mse", symmetric=symmetric), choose_range(histogram, "minmax")
    error = [mean_squared_error(values.tolist(), low, high, symmetric) for low, high in (chosen, whole)]
    assert error[0] <= 1.02 * error[1]


def test_entropy_leaves_zeros_out() -> None:
    values = bell().abs()
    with_zeros = torch.cat((values, torch.zeros(200_000)))
    assert choose_range(histogram_of(values), "entropy") == choose_range(histogram_of(with_zeros), "entropy")


def test_entropy_clips_an_outlier() -> None:
    low, high = choose_range(histogram_of(torch.cat((bell(), torch.tensor([60.0])))), "entropy")
    assert high < 30
    assert low > -6


def test_range_error_tells_share_and_ratio() -> None:
    values = torch.cat((torch.rand(100_000, generator=torch.Generator().manual_seed(0)), torch.full((1000,), 1.9)))
    clipped, ratio = range_error(histogram_of(values), 0.0, 1.0, symmetric=False)
    assert clipped == pytest.approx(1000 / 101_000)
    assert ratio == pytest.approx(10 * torch.log10(values.square().sum() / (1000 * 0.9**2)).item(), abs=0.1)
    _, ratio = range_error(histogram_of(values[:100_000]), 0.0, 1.0, symmetric=False)
    noise = mean_squared_error(values[:2000].tolist(), 0.0, 1.0, symmetric=False)
    assert ratio == pytest.approx(10 * torch.log10(torch.tensor(1 / 3 / noise)).item(), abs=0.3)


def test_unknown_methods_and_percentiles_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"method='median' is unknown: choose one of minmax, percentile"):
        choose_range(histogram_of(bell()), "median")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"percentile=0\.999 keeps too little"):
        choose_range(histogram_of(bell()), "percentile", percentile=0.999)
