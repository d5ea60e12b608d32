"""How good a detector is, in tables for the terminal and the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from detlit.metrics.operating_points import OperatingPoint
from detlit.metrics.quality import ClassQuality, QualityReport

__all__ = ["CLASS_COLUMNS", "STATISTIC_NAMES", "class_rows", "class_table", "number", "statistics_table"]

STATISTIC_NAMES = {
    "map": "AP, mean of IoU 0.50 to 0.95",
    "map_50": "AP at IoU 0.50",
    "map_75": "AP at IoU 0.75",
    "map_small": "AP of small objects",
    "map_medium": "AP of medium objects",
    "map_large": "AP of large objects",
    "mar_1": "AR with 1 detection per image and class",
    "mar_10": "AR with 10 detections",
    "mar_100": "AR with 100 detections",
    "mar_small": "AR of small objects",
    "mar_medium": "AR of medium objects",
    "mar_large": "AR of large objects",
}
"""What the twelve COCO statistics are."""

CLASS_COLUMNS = ("class", "objects", "AP", "AP50", "AP75", "AR", "precision", "recall", "F1", "best F1", "at score")


def number(value: float) -> str:
    """Return a share with four digits, and what could not be measured (NaN, or COCO's -1) as a dash."""
    return f"{value:.4f}" if value >= 0 else "-"


def statistics_table(title: str, statistics: Mapping[str, float]) -> Table:
    """Return the twelve numbers for the terminal."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("what it is")
    table.add_column("value", justify="right", no_wrap=True)
    for name, value in statistics.items():
        table.add_row(name, STATISTIC_NAMES[name], number(value))
    return table


def class_table(report: QualityReport) -> Table:
    """Return a row for each class, and one for all, for the terminal."""
    title = f"precision, recall and F1 at IoU 0.5 and score {report.score_threshold:.3f}"
    table = Table(title=title, title_justify="left")
    shown = [CLASS_COLUMNS.index(name) for name in ("class", "objects", "AP", "AP50", "precision", "recall", "F1")]
    for column in shown:
        name = CLASS_COLUMNS[column]
        table.add_column(name, justify="left" if name == "class" else "right", no_wrap=name != "class")
    rows = class_rows(report)
    for position, row in enumerate(rows):
        table.add_row(*(str(row[column]) for column in shown), end_section=position == len(rows) - 2)
    return table


def class_rows(report: QualityReport) -> list[Sequence[Any]]:
    """Return the cells of :data:`CLASS_COLUMNS` of each class, and of all classes last."""
    return [_row(quality) for quality in (*report.classes, report.overall)]


def _row(quality: ClassQuality) -> Sequence[Any]:
    average = quality.average
    ratios = [average.ap, average.ap_50, average.ap_75, average.ar, *_ratios(quality.at_threshold)]
    best = quality.best
    return [quality.name, average.num_objects, *map(_short, [*ratios, best.f1, best.score_threshold])]


def _ratios(point: OperatingPoint) -> tuple[float, float, float]:
    return point.precision, point.recall, point.f1


def _short(value: float) -> str:
    return f"{value:.3f}" if value >= 0 else "-"
