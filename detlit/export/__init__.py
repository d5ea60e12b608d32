"""Export: one file that holds preprocessing, detector and decoding, compared with torch before it is called done."""

from detlit.export.graph import DecodedDetector
from detlit.export.onnx_file import export_onnx
from detlit.export.session import OnnxSession

__all__ = ["DecodedDetector", "OnnxSession", "export_onnx"]
