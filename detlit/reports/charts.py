"""Small charts as inline SVG; colours are those of the page they stand in."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = ["bars", "histogram"]

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, BOTTOM, TOP = 44, 18, 34, 12


def histogram(values: NDArray[np.float64], unit: str = "", logarithmic: bool = False, most: int = 24) -> str:
    """Return an SVG of how values are distributed.

    Args:
        values: ``(N,)``; those that are not finite, or not positive on a logarithmic axis, are left out.
        unit: name of the axis.
        logarithmic: bins grow by a constant factor.
        most: bins at most; whole numbers of a small range get one each.
    """
    values = values[np.isfinite(values) & ((values > 0) if logarithmic else True)]
    if not len(values):
        return _svg('<text x="170" y="95" text-anchor="middle">nothing to count</text>', "empty histogram")
    edges = _edges(values, logarithmic, most)
    counts = np.histogram(values, edges)[0]
    peak = int(counts.max())
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = plot_width / len(counts)
    base = TOP + plot_height
    parts = [f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>']
    for share in (0.5, 1.0):
        y = base - plot_height * share
        parts.append(f'<line class="axis" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" opacity="0.5"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{_short(peak * share)}</text>')
    for number, count in enumerate(counts.tolist()):
        height = plot_height * count / peak
        title = f"{_range(edges, number)}: {count:,}"
        parts.append(
            f'<rect class="bar" x="{LEFT + number * step + 0.5:.1f}" y="{base - height:.1f}" '
            f'width="{max(step - 1, 0.5):.1f}" height="{height:.1f}"><title>{escape(title)}</title></rect>'
        )
    for position, label in _ticks(edges):
        x = LEFT + step * position
        parts.append(f'<text x="{x:.1f}" y="{base + 14}" text-anchor="middle">{_short(label)}</text>')
    parts.append(f'<text x="{LEFT + plot_width / 2:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(unit)}</text>')
    return _svg("".join(parts), f"histogram of {len(values)} values, {unit}")


def bars(names: Sequence[str], values: Sequence[float]) -> str:
    """Return an SVG with a horizontal bar for each name."""
    peak = max([*values, 0]) or 1
    parts = []
    for row, (name, value) in enumerate(zip(names, values, strict=True)):
        y = 6 + row * 20
        short = name if len(name) <= 16 else name[:15] + "…"
        width = 160 * value / peak
        parts.append(
            f'<text x="108" y="{y + 11}" text-anchor="end"><title>{escape(name)}</title>{escape(short)}</text>'
            f'<rect class="bar" x="114" y="{y}" width="{max(width, 0):.1f}" height="14"/>'
            f'<text x="{118 + max(width, 0):.1f}" y="{y + 11}">{_short(value)}</text>'
        )
    return _svg("".join(parts), "bars: " + ", ".join(names[:20]), 12 + 20 * len(names))


def _edges(values: NDArray[np.float64], logarithmic: bool, most: int) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    if logarithmic and high > low:
        return np.geomspace(low, high * (1 + 1e-9), most + 1)
    if (values == np.round(values)).all() and not logarithmic:
        width = math.ceil((high - low + 1) / most)
        return np.arange(low - 0.5, high + 0.5 + width, width)
    if high == low:
        return np.array([low - 0.5, high + 0.5])
    return np.linspace(low, high, most + 1)


def _is_whole(edges: NDArray[np.float64]) -> bool:
    """Tell whether each bin holds one whole number."""
    return bool((edges % 1 == 0.5).all() and (np.diff(edges) == 1).all())


def _ticks(edges: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Return position in bins and value of about five labels: below the middle of whole numbers, else at the edges."""
    if _is_whole(edges):
        chosen = np.unique(np.linspace(0, len(edges) - 2, min(len(edges) - 1, 6)).round())
        return [(position + 0.5, float(edges[int(position)] + 0.5)) for position in chosen.tolist()]
    chosen = np.unique(np.linspace(0, len(edges) - 1, 5).round())
    shift = 0.5 if (edges % 1 == 0.5).all() else 0.0
    return [(position, float(edges[int(position)] + shift)) for position in chosen.tolist()]


def _range(edges: NDArray[np.float64], number: int) -> str:
    low, high = float(edges[number]), float(edges[number + 1])
    if _is_whole(edges):
        return _short(low + 0.5)
    shift = 0.5 if (edges % 1 == 0.5).all() else 0.0
    return f"{_short(low + shift)} to {_short(high - shift)}"


def _short(value: float) -> str:
    """Return a number in a few characters: ``12k``, ``1.2k``, ``350``, ``0.35``."""
    if abs(value) >= 10000:
        return f"{value / 1000:.0f}k"
    if abs(value) >= 1000 and value % 100 == 0:
        return f"{value / 1000:g}k"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}"


def _svg(content: str, label: str, height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{content}</svg>'
