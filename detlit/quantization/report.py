"""How well each layer survives rounding, as a table."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import nn

from detlit.quantization.histogram import Histogram
from detlit.quantization.layers import ActivationQuantizer, QuantizedConvolution
from detlit.quantization.ranges import range_error

__all__ = ["LayerReport", "format_report", "make_report", "write_report"]


@dataclass(frozen=True)
class LayerReport:
    """One rounded tensor.

    Attributes:
        name: of the layer.
        tensor: ``"weight"`` or ``"activation"``.
        low: the least value that is represented.
        high: the largest value that is represented.
        clipped: share of the values outside, 0 to 1.
        sqnr: power of the values over that of their rounding errors, in decibels: 8 bits spread evenly give 50, and a
            layer below 25 is worth leaving in floating point.
    """

    name: str
    tensor: str
    low: float
    high: float
    clipped: float
    sqnr: float


def make_report(module: nn.Module, histograms: Mapping[str, Histogram]) -> list[LayerReport]:
    """Return the weights and activations of a module, in its order, weights first."""
    reports = []
    for name, part in module.named_modules():
        if isinstance(part, QuantizedConvolution):
            reports.append(_weight_report(name, part))
        if isinstance(part, ActivationQuantizer):
            low, high = (float(value) for value in part.range)
            clipped, sqnr = range_error(histograms[name], low, high, part.symmetric)
            reports.append(LayerReport(name, "activation", low, high, clipped, sqnr))
    return reports


@torch.no_grad()
def _weight_report(name: str, conv: QuantizedConvolution) -> LayerReport:
    weight = conv.weight.float()
    noise = (conv.rounded_weight().float() - weight).square().sum()
    sqnr = float(10 * torch.log10(weight.square().sum() / noise)) if noise > 0 else math.inf
    low, high = (float(value) for value in torch.aminmax(weight))
    return LayerReport(name, "weight", low, high, 0.0, sqnr)


def format_report(reports: Sequence[LayerReport], worst: int | None = None) -> str:
    """Return a table in plain text.

    Args:
        reports: the layers.
        worst: only that many, those of the lowest ratio first; ``None`` for all, in the order of the network.
    """
    rows = list(reports) if worst is None else sorted(reports, key=lambda report: report.sqnr)[:worst]
    width = max([len(report.name) for report in rows], default=5)
    lines = [f"{'layer':{width}}  {'tensor':10}  {'low':>9}  {'high':>9}  {'clipped':>9}  {'SQNR dB':>7}"]
    for row in rows:
        lines.append(
            f"{row.name:{width}}  {row.tensor:10}  {row.low:9.3f}  {row.high:9.3f}  {row.clipped:9.2e}  {row.sqnr:7.1f}"
        )
    return "\n".join(lines)


def write_report(reports: Sequence[LayerReport], path: str | Path) -> None:
    """Write all layers into a CSV file."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(LayerReport)])
        writer.writeheader()
        writer.writerows(asdict(report) for report in reports)
