"""Post-prediction callbacks: raw predictions to detections."""

from detlit.postprocess.base import PostPredictionCallback
from detlit.postprocess.matrix_nms import MatrixNMS
from detlit.postprocess.nms import NMSPostPredictionCallback

__all__ = ["MatrixNMS", "NMSPostPredictionCallback", "PostPredictionCallback"]
