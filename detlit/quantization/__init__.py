"""Quantization: detectors that compute with 8-bit integers, with and without training."""

from detlit.quantization.calibration import calibrate, calibration_batches, needs_calibration, without_rounding
from detlit.quantization.quantization import Quantization
from detlit.quantization.report import LayerReport, format_report, write_report

__all__ = [
    "LayerReport",
    "Quantization",
    "calibrate",
    "calibration_batches",
    "format_report",
    "needs_calibration",
    "without_rounding",
    "write_report",
]
