"""What an exported file computes: from raw images to boxes and scores."""

import copy

import torch
from torch import Tensor, nn

from detlit.models.detector import Detector
from detlit.ops.boxes import decode_boxes
from detlit.quantization.layers import ActivationQuantizer, QuantizedConvolution

__all__ = ["DecodedDetector", "exportable"]


class DecodedDetector(nn.Module):
    """A detector with normalization before it and decoding behind it, the part of prediction that is arithmetic.

    Args:
        detector: in evaluation mode.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the box and the scores of every anchor point.

        Args:
            images: ``(B, in_channels, H, W)`` uint8, or floating point in [0, 1]; the sides multiples of the largest
                stride.

        Returns:
            ``boxes (B, A, 4)`` xyxy pixels of the network input and ``scores (B, A, C)`` in [0, 1], float32.
        """
        detector = self.detector  # its parts, because its own check of the shape would fix the size in the graph
        inputs = detector.normalization(images, next(detector.parameters()).dtype)
        predictions = detector.head(detector.neck(detector.backbone(inputs)))
        boxes = decode_boxes(predictions.reg_logits, predictions.anchor_points, predictions.strides)
        return boxes, predictions.cls_logits.float().sigmoid()


def exportable(detector: Detector, half: bool = False) -> DecodedDetector:
    """Return a fully fused float32 copy, or float16 one, on the CPU; a quantized one with the integers of its weights.

    Folding a normalization into a rounded weight scales both its values and its steps, so no integer changes.
    """
    detector = copy.deepcopy(detector).cpu().float().eval().fuse(full=True).to(memory_format=torch.contiguous_format)
    for part in detector.modules():
        if isinstance(part, QuantizedConvolution) and part.weight_enabled:
            part.store_integers()
        if isinstance(part, ActivationQuantizer):
            part.exporting = True
    return DecodedDetector(detector.half() if half else detector).eval()
