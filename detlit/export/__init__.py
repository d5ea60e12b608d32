"""Export: one file that holds preprocessing, detector and decoding, compared with torch before it is called done."""

from detlit.export.graph import DecodedDetector
from detlit.export.lint import lint_tensorrt
from detlit.export.onnx_file import export_onnx
from detlit.export.session import OnnxSession, OpenVinoSession
from detlit.export.verify import Tolerance, Verification, verify

__all__ = [
    "DecodedDetector",
    "OnnxSession",
    "OpenVinoSession",
    "Tolerance",
    "Verification",
    "export_onnx",
    "lint_tensorrt",
    "verify",
]
