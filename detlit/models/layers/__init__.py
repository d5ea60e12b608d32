"""Layers that backbones, necks and heads share."""

from detlit.models.layers.attention import EffectiveSE
from detlit.models.layers.conv import ConvBNReLU, ConvBNSiLU, batch_norm
from detlit.models.layers.csp import Bottleneck, CSPLayer
from detlit.models.layers.csp_rep import CSPRepLayer, RepBottleneck
from detlit.models.layers.merge import Add, Concat
from detlit.models.layers.normalization import InputNormalization
from detlit.models.layers.qarepvgg import QARepVGGBlock
from detlit.models.layers.repvgg import RepVGGBlock
from detlit.models.layers.spp import SPP, PyramidPooling

__all__ = [
    "SPP",
    "Add",
    "Bottleneck",
    "CSPLayer",
    "CSPRepLayer",
    "Concat",
    "ConvBNReLU",
    "ConvBNSiLU",
    "EffectiveSE",
    "InputNormalization",
    "PyramidPooling",
    "QARepVGGBlock",
    "RepBottleneck",
    "RepVGGBlock",
    "batch_norm",
]
