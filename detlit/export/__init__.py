"""Export: one file that holds preprocessing, detector and decoding, compared with torch before it is called done."""

from detlit.export.comparison import Comparison, compare
from detlit.export.files import export_file
from detlit.export.graph import DecodedDetector
from detlit.export.lint import lint_tensorrt
from detlit.export.onnx_file import export_onnx
from detlit.export.session import OnnxSession, OpenVinoSession, open_exported
from detlit.export.suppression import Suppression
from detlit.export.verify import Tolerance, Verification, verify

__all__ = [
    "Comparison",
    "DecodedDetector",
    "OnnxSession",
    "OpenVinoSession",
    "Suppression",
    "Tolerance",
    "Verification",
    "compare",
    "export_file",
    "export_onnx",
    "lint_tensorrt",
    "open_exported",
    "verify",
]
