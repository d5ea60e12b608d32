"""How often the values of a tensor occur, counted once, for every calibration method."""

import math

import torch
from torch import Tensor, distributed

from detlit.errors import ConfigurationError

__all__ = ["HALF", "Histogram"]

HALF = 4096
"""Bins on either side of zero."""


class Histogram:
    """Counts in bins ``[i * width, (i + 1) * width)`` for i from -4096 to 4095, and the exact least and largest value.

    The width is a power of two, the least that lets all values in, and doubles as larger ones arrive. So histograms of
    parts of the data, each with a width of its own, merge exactly.

    Attributes:
        counts: ``(8192,)`` int64, on the CPU.
        exponent: of the width, base 2; ``None`` before the first value other than zero.
        zeros: values that are exactly zero; they are in ``counts`` too.
        low: the least value.
        high: the largest value.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(2 * HALF, dtype=torch.int64)
        self.exponent: int | None = None
        self.zeros = 0
        self.low, self.high = math.inf, -math.inf

    @property
    def centres(self) -> Tensor:
        """``(8192,)`` float64, the middle of each bin."""
        width = 2.0 ** (0 if self.exponent is None else self.exponent)
        return (torch.arange(-HALF, HALF, dtype=torch.float64) + 0.5) * width

    @torch.no_grad()
    def collect(self, x: Tensor) -> None:
        """Count the values of a tensor of any shape.

        Raises:
            ConfigurationError: a value that is not finite.
        """
        values = x.detach().float().flatten()
        low, high = (float(value) for value in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConfigurationError(
                "an activation is not finite on the calibration images: check the weights, and that images are uint8 "
                "or in [0, 1]."
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.zeros += int((values == 0).sum())
        self._widen_to(_exponent_for(max(-low, high)))
        bins = (values * 2.0 ** -(self.exponent or 0)).floor_().add_(HALF).to(torch.int64)
        self.counts += torch.bincount(bins, minlength=2 * HALF).cpu()

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.zeros += other.zeros
        self._widen_to(other.exponent)
        other._widen_to(self.exponent)
        self.counts += other.counts

    def _widen_to(self, exponent: int | None) -> None:
        """Join bins until they are as wide; zeros alone fit any width."""
        if exponent is None:
            return
        if self.exponent is None:
            self.exponent = exponent
        while self.exponent < exponent:
            pairs = self.counts.view(HALF, 2).sum(1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[HALF // 2 : HALF // 2 + HALF] = pairs
            self.exponent += 1


def _exponent_for(largest: float) -> int | None:
    """Return the exponent of the least width with which ``largest`` lies inside the bins, ``None`` for zero."""
    if largest == 0:
        return None
    exponent = math.frexp(largest)[1] - int(math.log2(HALF))  # largest < 2 ** frexp's exponent
    return max(exponent, -100)  # denormal numbers count as zero


def merge_over_ranks(histograms: list[Histogram]) -> None:
    """Let every process have the counts of all; without a process group, nothing happens. A collective call."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    gathered: list[list[Histogram]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(gathered, histograms)
    for position, histogram in enumerate(histograms):
        total = Histogram()
        for rank in gathered:
            total.merge(rank[position])
        histogram.__dict__.update(total.__dict__)
