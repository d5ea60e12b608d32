"""Which range of a tensor the integers should cover: clip outliers, or round more coarsely."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.quantization.histogram import HALF, Histogram

__all__ = ["Method", "check_method", "choose_range", "range_error"]

Method = Literal["minmax", "percentile", "mse", "entropy"]
"""How to choose a range:

- ``"minmax"``: nothing is clipped.
- ``"percentile"``: a given share of the values is not clipped. Below 99.99 it cuts off the logits that detections are.
- ``"mse"``: the least mean squared error.
- ``"entropy"``: the least Kullback-Leibler divergence of the rounded from the true distribution; exact zeros, which
  are half of what ReLU returns, are left out.
"""

_STEPS = 80
"""Ranges that the searches try for either side."""


def check_method(method: Method, percentile: float) -> None:
    """Refuse a way to choose ranges that there is not, before images are read for it.

    Raises:
        ConfigurationError: an unknown method, or a percentile outside (50, 100].
    """
    if method not in get_args(Method):
        raise ConfigurationError(f"method={method!r} is unknown: choose one of {', '.join(get_args(Method))}.")
    if not 50 < percentile <= 100:
        raise ConfigurationError(f"percentile={percentile} keeps too little: choose more than 50, at most 100.")


def choose_range(
    histogram: Histogram, method: Method, *, percentile: float = 99.999, symmetric: bool = False
) -> tuple[float, float]:
    """Return the least and the largest value to represent, with zero between them.

    Args:
        histogram: of the values.
        method: how to choose, see :data:`Method`.
        percentile: share of the values that stays, in percent; read by ``"percentile"`` alone.
        symmetric: the integers are symmetric around zero.

    Raises:
        ConfigurationError: what :func:`check_method` refuses.
    """
    check_method(method, percentile)
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if low == high:
        return 0.0, 0.0
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    if method == "percentile":
        return _percentile_range(histogram, low, high, percentile, symmetric)
    if method == "mse":
        return _search(low, high, symmetric, lambda lows, highs: _squared_errors(histogram, lows, highs, symmetric))
    if method == "entropy":
        return _search(low, high, symmetric, lambda lows, highs: _divergences(histogram, lows, highs))
    return low, high


def range_error(histogram: Histogram, low: float, high: float, symmetric: bool) -> tuple[float, float]:
    """Return the share of values outside a range, and the signal-to-noise ratio in decibels of rounding within it."""
    total = max(1, int(histogram.counts.sum()))
    centres = histogram.centres
    half_bin = float(centres[1] - centres[0]) / 2
    outside = (centres > high + half_bin) | (centres < low - half_bin)
    power = (histogram.counts * centres.square()).sum()
    noise = _squared_errors(histogram, torch.tensor([low]).double(), torch.tensor([high]).double(), symmetric)[0]
    ratio = 10 * torch.log10(power / noise) if power > 0 else torch.tensor(torch.inf)
    return int(histogram.counts[outside].sum()) / total, float(ratio)


def _percentile_range(
    histogram: Histogram, low: float, high: float, percentile: float, symmetric: bool
) -> tuple[float, float]:
    """Return the range that a share of all values lies in; one of its ends may be that of the data."""
    total = int(histogram.counts.sum())
    clipped = total * (1 - percentile / 100) / (2 if low < 0 < high and not symmetric else 1)
    width = float(histogram.centres[1] - histogram.centres[0])
    counts = histogram.counts + histogram.counts.flip(0) if symmetric else histogram.counts
    from_top = counts.flip(0).cumsum(0)
    from_bottom = counts.cumsum(0)
    top = (HALF - int((from_top <= clipped).sum())) * width
    bottom = (int((from_bottom <= clipped).sum()) - HALF) * width
    return max(low, min(bottom, 0.0)), min(high, max(top, 0.0))


def _search(low: float, high: float, symmetric: bool, loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float]:
    """Return the range of the least loss: the upper end first, then the lower one, each a share of what occurs."""
    shares = torch.linspace(1, 1 / _STEPS, _STEPS, dtype=torch.float64)
    if symmetric:
        best = float(shares[loss(low * shares, high * shares).argmin()])
        return low * best, high * best
    for _ in range(2):
        if high > 0:
            ends = high * shares
            high = float(ends[loss(torch.full_like(ends, low), ends).argmin()])
        if low < 0:
            ends = low * shares
            low = float(ends[loss(ends, torch.full_like(ends, high)).argmin()])
        shares = torch.linspace(1.0, 0.9, 11, dtype=torch.float64)
    return low, high


def _grid(lows: Tensor, highs: Tensor, symmetric: bool) -> tuple[Tensor, Tensor, int, int]:
    """Return scale and zero point of each range, ``(R, 1)``, and the least and the largest integer."""
    lowest, highest = (-128, 127) if symmetric else (0, 255)
    if symmetric:
        scales = (torch.maximum(-lows, highs) / highest)[:, None]
        return scales, torch.zeros_like(scales), lowest, highest
    scales = ((highs - lows) / (highest - lowest))[:, None]
    return scales, (lowest - lows[:, None] / scales).round(), lowest, highest


def _squared_errors(histogram: Histogram, lows: Tensor, highs: Tensor, symmetric: bool) -> Tensor:
    """Return the squared error ``(R,)`` of all values, rounded within each of ``R`` ranges.

    Within a bin the values are taken as spread evenly, except for exact zeros, which have no error.
    """
    used = histogram.counts.nonzero()[:, 0]
    counts, centres = histogram.counts[used].double(), histogram.centres[used]
    counts = counts - histogram.zeros * (used == HALF)
    width = float(histogram.centres[1] - histogram.centres[0])
    scales, zero_points, lowest, highest = _grid(lows, highs, symmetric)
    integers = (centres / scales + zero_points).round_().clamp_(lowest, highest)
    errors = (integers - zero_points).mul_(scales).sub_(centres).square_()
    return (errors + width**2 / 12) @ counts


def _divergences(histogram: Histogram, lows: Tensor, highs: Tensor) -> Tensor:
    """Return the divergence ``(R,)`` of 256 even levels from the histogram, which is clipped to each of ``R`` ranges.

    As in TensorRT's calibration (Migacz, 8-bit inference with TensorRT, GTC 2017): what is clipped counts at the edges
    of the true distribution, and a level spreads its values over those of its bins that are not empty.
    """
    counts = histogram.counts.double()
    counts[HALF] -= histogram.zeros
    centres = histogram.centres
    losses = []
    most_clipped = 0.01 * counts.sum()  # nearly all of a distribution in one edge bin would be no divergence at all
    for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
        inside = ((centres >= low) & (centres <= high)).nonzero()[:, 0]
        first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (0, -1)
        kept = counts[first : last + 1]
        if counts.sum() - kept.sum() > most_clipped:
            losses.append(torch.tensor(torch.inf, dtype=torch.float64))
            continue
        true = kept.clone()
        true[0] += counts[:first].sum()
        true[-1] += counts[last + 1 :].sum()
        levels = ((centres[first : last + 1] - low) / (high - low) * 255).round().long()
        occupied = (true > 0).double()
        sums = torch.zeros(256, dtype=torch.float64).index_add_(0, levels, kept)
        bins = torch.zeros(256, dtype=torch.float64).index_add_(0, levels, occupied)
        model = (sums / bins.clamp(min=1))[levels] * occupied
        losses.append(_kl_divergence(true, model))
    return torch.stack(losses)


def _kl_divergence(true: Tensor, model: Tensor) -> Tensor:
    """Return the divergence of two histograms, neither of which need be normalized."""
    occupied = true > 0
    true, model = true[occupied], model[occupied].clamp(min=1e-12)
    true, model = true / true.sum(), model / model.sum()
    return (true * (true / model).log()).sum()
