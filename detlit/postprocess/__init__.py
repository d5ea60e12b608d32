"""Post-prediction callbacks: raw predictions to detections."""

from detlit.postprocess.base import PostPredictionCallback
from detlit.postprocess.nms import NMSPostPredictionCallback

__all__ = ["NMSPostPredictionCallback", "PostPredictionCallback"]
