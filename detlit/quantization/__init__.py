"""Quantization: detectors that compute with 8-bit integers, with and without training."""

from detlit.quantization.calibration import calibrate, calibration_batches, needs_calibration, without_rounding
from detlit.quantization.post_training import Quantized, quantize
from detlit.quantization.quantization import Quantization
from detlit.quantization.report import LayerReport, format_report, write_report
from detlit.quantization.sensitivity import Sensitivity, format_sensitivity, sensitivity

__all__ = [
    "LayerReport",
    "Quantization",
    "Quantized",
    "Sensitivity",
    "calibrate",
    "calibration_batches",
    "format_report",
    "format_sensitivity",
    "needs_calibration",
    "quantize",
    "sensitivity",
    "without_rounding",
    "write_report",
]
