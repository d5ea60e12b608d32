"""Charts of how good a detector is, as inline SVG; see :mod:`detlit.reports.charts`."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLORS", "heat_map", "lines", "reliability"]

Floats = NDArray[np.float64]
Line = tuple[str, Floats, Floats]
"""Name, x and y; where one is NaN the line is interrupted."""

WIDTH, HEIGHT = 340, 264
LEFT, RIGHT, TOP, BOTTOM = 34, 10, 24, 34

COLORS = ("#2f7fe0", "#e08a1e", "#2e9e5b", "#c2408a", "#8a63d2", "#1a9aa8", "#b0892a", "#d9534f")
"""Of the lines, in turn: light enough for a dark page, dark enough for a light one."""


def lines(drawn: Sequence[Line], x_name: str, y_name: str, mark: float | None = None) -> str:
    """Return an SVG of lines in the unit square, with a legend below; the first one is thick.

    Args:
        drawn: the lines.
        x_name: name of the horizontal axis.
        y_name: name of the vertical axis.
        mark: where a dashed vertical line goes.
    """
    parts = [_axes(x_name, y_name)]
    if mark is not None:
        parts.append(
            f'<line x1="{_x(mark):.1f}" y1="{_y(0)}" x2="{_x(mark):.1f}" y2="{_y(1)}" stroke="currentColor" '
            f'stroke-dasharray="4 3" opacity="0.6"><title>{mark:.3f}</title></line>'
        )
    for row in range(len(drawn) - 1, -1, -1):
        name, x, y = drawn[row]
        parts.append(
            f'<path d="{_path(x, y)}" fill="none" stroke="{COLORS[row % len(COLORS)]}" '
            f'stroke-width="{2.4 if row == 0 else 1.2}" stroke-linejoin="round"><title>{escape(name)}</title></path>'
        )
    legend, height = _legend([name for name, _, _ in drawn])
    return _svg("".join(parts) + legend, f"{y_name} over {x_name}", HEIGHT + height)


def reliability(edges: Floats, precision: Floats, count: NDArray[np.int64]) -> str:
    """Return an SVG of bars, the precision in each bin of scores, and the diagonal on which it should be.

    Args:
        edges: ``(B + 1,)`` of the bins.
        precision: ``(B,)``; NaN for an empty bin.
        count: ``(B,)`` detections, said on hovering; bins of few are pale.
    """
    parts = [_axes("score", "precision")]
    for low, high, value, number in zip(edges[:-1], edges[1:], precision, count, strict=True):
        if number:
            parts.append(
                f'<rect class="bar" x="{_x(low) + 1:.1f}" y="{_y(value):.1f}" width="{_x(high) - _x(low) - 2:.1f}" '
                f'height="{_y(0) - _y(value):.1f}" opacity="{0.9 if number >= _FEW else 0.35}">'
                f"<title>score {low:.1f} to {high:.1f}: {number:,} detections, {value:.3f} of them right</title></rect>"
            )
    parts.append(
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="currentColor" stroke-dasharray="4 3" '
        'opacity="0.6"/>'
    )
    return _svg("".join(parts), "precision over score", HEIGHT)


_FEW = 20


def heat_map(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """Return an SVG of a confusion matrix, each row shaded by its shares; zeros are left blank.

    Args:
        counts: ``(C + 1, C + 1)`` as of :func:`~detlit.metrics.confusion.confusion_matrix`.
        names: of the ``C`` classes.
    """
    size = len(counts)
    cell = max(18, min(64, 620 // size))
    letters = 11 if cell >= 30 else 9
    row_names = [*names, "background"]
    column_names = [*names, "missed"]
    left = 16 + round(max(len(_abridged(name)) for name in row_names) * letters * 0.6)
    below = 24 if cell >= 56 else left
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = []
    for row in range(size):
        y = row * cell
        parts.append(_label(left - 6, y + cell / 2 + 4, row_names[row], letters, "end"))
        for column in np.flatnonzero(counts[row]).tolist():
            share, x = float(shares[row, column]), left + column * cell
            title = f"{row_names[row]} as {column_names[column]}: {counts[row, column]:,} ({share:.0%})"
            fill = "var(--bar)" if row == column else "var(--error)"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{fill}" '
                f'fill-opacity="{0.12 + 0.68 * share:.2f}"><title>{escape(title)}</title></rect>'
            )
            if cell >= 30:
                text = _label(x + cell / 2, y + cell / 2 + 4, _short(int(counts[row, column])), 11, "middle")
                parts.append(text.replace("<text", '<text class="ink"'))
    grid = size * cell
    parts.append(
        f'<rect x="{left}" y="0" width="{grid}" height="{grid}" fill="none" stroke="var(--line)"/>'
        f'<line class="axis" x1="{left}" y1="{grid - cell}" x2="{left + grid}" y2="{grid - cell}"/>'
        f'<line class="axis" x1="{left + grid - cell}" y1="0" x2="{left + grid - cell}" y2="{grid}"/>'
    )
    for column, name in enumerate(column_names):
        x = left + column * cell + cell / 2
        if cell >= 56:
            parts.append(_label(x, grid + 15, name, letters, "middle", most=max(4, cell // 7)))
        else:
            text = _label(x + 4, grid + 6, name, letters, "end")
            parts.append(text.replace("<text", f'<text transform="rotate(-90 {x + 4} {grid + 6})"'))
    width, height = left + grid + 2, grid + below
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="confusion matrix of {len(names)} classes">{"".join(parts)}</svg>'
    )


def _x(value: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * float(value), 1)


def _y(value: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * float(value), 1)


def _path(x: Floats, y: Floats) -> str:
    """Return the path data of a line, a new piece after each gap."""
    commands, pen = [], "M"
    for across, up in zip(x.tolist(), y.tolist(), strict=True):
        if np.isnan(across) or np.isnan(up):
            pen = "M"
            continue
        commands.append(f"{pen}{_x(across)} {_y(up)}")
        pen = "L"
    return "".join(commands)


def _axes(x_name: str, y_name: str) -> str:
    """Return a grid from 0 to 1 with the names of its axes."""
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        faint = "" if tick == 0 else ' opacity="0.5"'
        parts.append(f'<line class="axis" x1="{_x(0)}" y1="{_y(tick)}" x2="{_x(1)}" y2="{_y(tick)}"{faint}/>')
        parts.append(f'<line class="axis" x1="{_x(tick)}" y1="{_y(0)}" x2="{_x(tick)}" y2="{_y(1)}"{faint}/>')
        parts.append(f'<text x="{_x(0) - 5}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}</text>')
        anchor = "end" if tick == 1 else "middle"
        parts.append(f'<text x="{_x(tick)}" y="{_y(0) + 14}" text-anchor="{anchor}">{tick:g}</text>')
    parts.append(f'<text x="{_x(0.5)}" y="{_y(0) + 28}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text x="{_x(0)}" y="{TOP - 10}">{escape(y_name)}</text>')
    return "".join(parts)


def _legend(names: Sequence[str]) -> tuple[str, int]:
    """Return the legend below a chart, two names in a line, and its height; one name needs none."""
    if len(names) < 2:
        return "", 0
    parts = []
    for row, name in enumerate(names):
        x, y = LEFT + (row % 2) * 155, HEIGHT + 10 + (row // 2) * 16
        parts.append(f'<rect x="{x}" y="{y - 7}" width="14" height="4" fill="{COLORS[row % len(COLORS)]}"/>')
        parts.append(_label(x + 20, y, name, 11, "start"))
    return "".join(parts), 16 * ((len(names) + 1) // 2) + 4


def _label(x: float, y: float, text: str, letters: int, anchor: str, most: int = 18) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="font-size:{letters}px">'
        f"<title>{escape(text)}</title>{escape(_abridged(text, most))}</text>"
    )


def _abridged(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _short(count: int) -> str:
    return str(count) if count < 10000 else f"{count / 1000:.0f}k"


def _svg(content: str, label: str, height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{content}</svg>'
