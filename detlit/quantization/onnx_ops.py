"""The two ONNX operators of a quantized graph, placed as they are: ``QuantizeLinear`` and ``DequantizeLinear``.

Fake quantization has no shape function that ``torch.export`` could follow through dynamic sizes, and exporters turn it
into float weights with operators around them. https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["dequantize", "quantize_dequantize"]

_VERSION = 13
"""Of both operators: the first with a scale per channel."""


def quantize_dequantize(x: Tensor, scale: Tensor, zero_point: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``x`` rounded to integers of ``dtype`` and back, with one scale for the tensor."""
    zero = zero_point.round().to(dtype)
    integers = _operator("QuantizeLinear", (x, scale, zero), dtype=dtype, shape=x.shape)
    return _operator("DequantizeLinear", (integers, scale, zero), dtype=torch.float32, shape=x.shape)


def dequantize(integers: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Return ``integers * scale`` with one scale for each channel along ``axis``."""
    zeros = torch.zeros_like(scale, dtype=integers.dtype)
    return _operator(
        "DequantizeLinear", (integers, scale, zeros), dtype=torch.float32, shape=integers.shape, attrs={"axis": axis}
    )


def _operator(name: str, inputs: tuple[Tensor, ...], **options: Any) -> Tensor:
    from torch.onnx import ops  # new in torch 2.8; detlit.export says so

    return ops.symbolic(name, inputs, version=_VERSION, **options)
