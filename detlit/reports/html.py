"""A report as one HTML file: no script, nothing from the network, light or dark as the reader's system is.

::

    page = Page("Data of cells", "checked on Monday")
    page.section("Objects", "What is annotated.")
    page.table(["class", "objects"], [["red", 12], ["white", 3]])
    page.histogram("objects per image", counts)
    page.picture_grid([Picture(image, "cells/1.jpg")])
    page.write("report.html")
"""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from detlit.reports.charts import bars, histogram

__all__ = ["Page", "Picture"]


class Picture(NamedTuple):
    """An RGB image ``(H, W, 3)`` uint8 and what is written below it."""

    image: NDArray[np.uint8]
    caption: str


class Page:
    """A page that is filled from top to bottom; all text is escaped.

    Args:
        title: heading of the page.
        subtitle: a line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._parts: list[str] = []
        self._sections: list[str] = []

    def section(self, title: str, text: str = "") -> None:
        """Begin a section, which the contents at the top link to."""
        self._sections.append(title)
        self._parts.append(f'<h2 id="s{len(self._sections)}">{escape(title)}</h2>')
        if text:
            self.text(text)

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def figures(self, figures: Sequence[tuple[Any, str]]) -> None:
        """Add key figures side by side, each a value and what it is."""
        cells = "".join(f"<div><b>{escape(str(value))}</b>{escape(label)}</div>" for value, label in figures)
        self._parts.append(f'<div class="figures">{cells}</div>')

    def message(self, severity: str, title: str, text: str = "", items: Sequence[str] = (), shown: int = 20) -> None:
        """Add a coloured box: ``"error"``, ``"warning"`` or ``"note"``, with a list that unfolds beyond a few items.

        Args:
            severity: the colour, and the word in front of the title.
            title: one line.
            text: what to do about it.
            items: places, one a line.
            shown: how many of them at most.
        """
        lines = "".join(f"<li>{escape(item)}</li>" for item in items[:shown])
        if len(items) > shown:
            lines += f"<li>and {len(items) - shown} more</li>"
        listed = f"<ul>{lines}</ul>"
        if len(items) > _UNFOLDED:
            listed = f"<details><summary>where ({len(items)})</summary>{listed}</details>"
        paragraph = f"<p>{escape(text)}</p>" if text else ""
        head = f"<b><span>{escape(severity)}</span> {escape(title)}</b>"
        self._parts.append(f'<div class="message {escape(severity)}">{head}{paragraph}{listed if items else ""}</div>')

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table; numbers are aligned to the right and grouped by thousands."""
        numeric = [bool(rows) and all(_is_number(row[column]) for row in rows) for column in range(len(headings))]
        sides = [' class="number"' if number else "" for number in numeric]
        head = "".join(f"<th{side}>{escape(text)}</th>" for side, text in zip(sides, headings, strict=True))
        body = "".join(
            "<tr>" + "".join(f"<td{side}>{_cell(value)}</td>" for side, value in zip(sides, row, strict=True)) + "</tr>"
            for row in rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._parts.append(f'<div class="scroll">{table}</div>')

    def histogram(self, title: str, values: ArrayLike, unit: str = "", logarithmic: bool = False) -> None:
        """Add the distribution of values; see :func:`~detlit.reports.charts.histogram`. Neighbours share a line."""
        self.chart(title, histogram(np.asarray(values, dtype=np.float64), unit, logarithmic))

    def bars(self, title: str, names: Sequence[str], values: Sequence[float]) -> None:
        """Add a horizontal bar for each name."""
        self.chart(title, bars(names, values))

    def chart(self, title: str, svg: str, wide: bool = False) -> None:
        """Add an inline SVG, which is not escaped; a wide one has a line of its own."""
        figure = f"<figure>{svg}<figcaption>{escape(title)}</figcaption></figure>"
        self._append_to("wide" if wide else "charts", figure)

    def picture_grid(self, pictures: Sequence[Picture], quality: int = 85, wide: bool = False) -> None:
        """Add pictures with captions, several in a line, embedded as JPEG of a quality from 1 to 100.

        Args:
            pictures: what to show.
            quality: of the JPEGs.
            wide: at most two in a line.
        """
        for picture in pictures:
            source = _data_url(picture.image, quality)
            self._append_to(
                "pictures pairs" if wide else "pictures",
                f'<figure><img src="{source}" alt="{escape(picture.caption)}" loading="lazy">'
                f"<figcaption>{escape(picture.caption)}</figcaption></figure>",
            )

    def _append_to(self, kind: str, figure: str) -> None:
        """Add a figure to a grid, the same one as before if that was the last thing on the page."""
        opening, closing = f'<div class="{kind}">', "</div>"
        if self._parts and self._parts[-1].startswith(opening):
            self._parts[-1] = self._parts[-1].removesuffix(closing) + figure + closing
        else:
            self._parts.append(opening + figure + closing)

    def html(self) -> str:
        """Return the page."""
        links = "".join(f'<a href="#s{number}">{escape(title)}</a>' for number, title in enumerate(self._sections, 1))
        contents = f"<nav>{links}</nav>" if len(self._sections) > 1 else ""
        subtitle = f'<p class="soft">{escape(self.subtitle)}</p>' if self.subtitle else ""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{escape(self.title)}</title>\n<style>{_STYLE}</style></head>\n<body><main>\n"
            + "\n".join([f"<h1>{escape(self.title)}</h1>", subtitle, contents, *self._parts])
            + "\n</main></body></html>\n"
        )

    def write(self, path: str | Path) -> None:
        """Write the page to a file."""
        Path(path).write_text(self.html(), encoding="utf-8")


_UNFOLDED = 5


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if _is_number(value):
        return f"{value:,}" if isinstance(value, (int, np.integer)) else f"{value:,.4g}"
    return escape(str(value))


def _data_url(image: NDArray[np.uint8], quality: int) -> str:
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


_STYLE = """
:root { --paper: #fff; --raised: #f5f6f8; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --bar: #2f6fd0;
  --error: #c62828; --warning: #a15c00; --note: #2f6fd0; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --raised: #1e2228; --ink: #e6e9ed; --soft: #9aa4af;
  --line: #343b44; --bar: #6aa2f5; --error: #ff7b72; --warning: #e3a33c; --note: #6aa2f5; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 19px; margin: 36px 0 8px; }
p { margin: 6px 0 10px; max-width: 75ch; } .soft { color: var(--soft); overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; border-bottom: 1px solid var(--line); padding: 8px 0; }
a { color: var(--note); text-decoration: none; } a:hover { text-decoration: underline; }
.figures { display: flex; flex-wrap: wrap; gap: 10px; margin: 16px 0; }
.figures div { background: var(--raised); border-radius: 8px; padding: 10px 16px; color: var(--soft); }
.figures b { display: block; color: var(--ink); font-size: 22px; line-height: 1.3; }
.message { background: var(--raised); border-left: 4px solid var(--line); border-radius: 4px; padding: 8px 14px;
  margin: 10px 0; }
.message span { text-transform: uppercase; font-size: 11px; letter-spacing: .06em; margin-right: 6px; }
.message p { margin: 2px 0; color: var(--soft); } .message ul { margin: 4px 0; padding-left: 20px; }
.message li { overflow-wrap: anywhere; } summary { cursor: pointer; color: var(--soft); }
.error { border-color: var(--error); } .error span { color: var(--error); }
.warning { border-color: var(--warning); } .warning span { color: var(--warning); }
.note { border-color: var(--note); } .note span { color: var(--note); }
.scroll { overflow: auto; max-height: 420px; width: fit-content; max-width: 100%; }
thead th { position: sticky; top: 0; background: var(--paper); } table { border-collapse: collapse; margin: 0 0 8px; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } .number { text-align: right; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 16px; margin: 12px 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 16px; margin: 12px 0; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); }
.wide { margin: 12px 0; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .bar { fill: var(--bar); } svg .ink { fill: var(--ink); } svg .axis { stroke: var(--line); }
img { max-width: 100%; height: auto; display: block; border-radius: 4px; }
"""
