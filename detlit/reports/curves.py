"""The curves of a run as a picture: losses, scores and learning rates over the steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detlit.reports.evaluation_charts import COLORS

__all__ = ["Best", "Curve", "draw_curves"]

Curve = Sequence[tuple[float, float]]
"""Points (step, value); those that are not finite interrupt the line."""

_MOST_RATES = 6
_SMOOTHED = 40
"""Points from which on a line of training is drawn thin, below its moving average; validation is drawn as it is."""


class Best(NamedTuple):
    """The best value of a metric and when it was measured."""

    name: str
    step: float
    value: float


def draw_curves(
    panels: Mapping[str, Mapping[str, Curve]],
    path: str | Path,
    title: str,
    best: Best | None = None,
    epoch_ends: Sequence[float] = (),
) -> None:
    """Draw curves side by side into a file, whose extension decides on the format; a viewer never sees half of it.

    Args:
        panels: names and curves of each panel, under its title; curves without points are left out.
        path: ``.png``, ``.svg`` or another format of matplotlib.
        title: of the whole picture.
        best: a point of one of the curves, marked.
        epoch_ends: steps at which epochs ended, drawn as faint lines if they are few.
    """
    from matplotlib.figure import Figure  # half a second, and no pyplot: nobody's backend or figures are touched

    path = Path(path)
    figure = Figure(figsize=(5.2 * len(panels), 4.4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=12)
    for number, (name, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), number + 1, sharex=figure.axes[0] if figure.axes else None)
        _draw_panel(axes, name, {key: curve for key, curve in curves.items() if len(curve)}, best)
        if len(epoch_ends) <= 30:
            for step in epoch_ends:
                axes.axvline(step, color="#000000", alpha=0.08, linewidth=0.8, zorder=0)
    unfinished = path.with_name(f".{path.name}.part")
    figure.savefig(unfinished, format=path.suffix[1:])
    unfinished.replace(path)


def _draw_panel(axes: Any, title: str, curves: Mapping[str, Curve], best: Best | None) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("optimizer steps")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for number, (name, curve) in enumerate(curves.items()):
        steps, values = np.array(curve, dtype=float).T
        values = np.where(np.isfinite(values), values, np.nan)
        color = COLORS[number % len(COLORS)]
        smooth = name.startswith("train/") and len(values) >= _SMOOTHED
        marker = "o" if len(values) <= 25 else None
        axes.plot(
            steps, values, color=color, linewidth=0.8 if smooth else 1.6, alpha=0.3 if smooth else 1.0,
            marker=marker, markersize=3, label=None if smooth else name,
        )  # fmt: skip
        if smooth:
            axes.plot(steps, _moving_average(values), color=color, linewidth=1.8, label=name)
    if not curves:
        axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", color="#5f6368")
        return
    if not any("loss" in name for name in curves):
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if best is not None and best.name in curves:
        _mark(axes, best)
    axes.legend(fontsize=8, frameon=False)


def _mark(axes: Any, best: Best) -> None:
    axes.plot([best.step], [best.value], marker="*", markersize=13, color="#d9534f", markeredgecolor="white", zorder=5)
    left = best.step > np.mean(axes.get_xlim())
    axes.annotate(
        f"best {best.value:.3g}\nstep {best.step:.0f}",
        (best.step, best.value),
        xytext=(-9 if left else 9, -6),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        fontsize=9,
        color="#b3312e",
    )


def _moving_average(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the mean of each value and those around it, a twentieth of all; what is not a number does not count."""
    half = max(1, len(values) // 40)
    window = np.ones(2 * half + 1)
    known = np.isfinite(values)
    totals = np.convolve(np.where(known, values, 0.0), window)[half:-half]
    counts = np.convolve(known.astype(float), window)[half:-half]
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
