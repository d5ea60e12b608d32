"""Layers that backbones, necks and heads share."""

from detlit.models.layers.conv import ConvBNReLU, batch_norm
from detlit.models.layers.csp import Bottleneck, CSPLayer
from detlit.models.layers.merge import Add, Concat
from detlit.models.layers.normalization import InputNormalization
from detlit.models.layers.qarepvgg import QARepVGGBlock
from detlit.models.layers.spp import SPP

__all__ = [
    "SPP",
    "Add",
    "Bottleneck",
    "CSPLayer",
    "Concat",
    "ConvBNReLU",
    "InputNormalization",
    "QARepVGGBlock",
    "batch_norm",
]
