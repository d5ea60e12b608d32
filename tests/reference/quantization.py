"""Rounding to integers and the search for ranges, one value at a time."""

import math
from collections.abc import Sequence


def round_half_even(value: float) -> int:
    return round(value)


def to_grid(value: float, scale: float, zero_point: int, lowest: int, highest: int) -> float:
    integer = min(max(round_half_even(value / scale) + zero_point, lowest), highest)
    return (integer - zero_point) * scale


def mean_squared_error(values: Sequence[float], low: float, high: float, symmetric: bool) -> float:
    if symmetric:
        scale, zero_point, lowest, highest = max(-low, high) / 127, 0, -128, 127
    else:
        scale, lowest, highest = (high - low) / 255, 0, 255
        zero_point = round_half_even(-low / scale)
    errors = [to_grid(value, scale, zero_point, lowest, highest) - value for value in values]
    return math.fsum(error**2 for error in errors) / len(values)
