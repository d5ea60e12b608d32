"""Layers that compute in floating point what integers would: fake quantization, https://arxiv.org/abs/1712.05877.

Convolutions are changed in place, so that the names of their weights stay. Weights are rounded per output channel and
symmetric around zero; their scale follows from the weight itself whenever it is used, so nothing about it can go stale,
and folding a normalization into the weight changes no integer. Activations are rounded per tensor where the tensor is
made, with a scale and zero point that calibration finds.
"""

from typing import cast

import torch
from torch import Tensor, nn

from detlit.quantization.histogram import Histogram
from detlit.quantization.onnx_ops import dequantize, quantize_dequantize

__all__ = [
    "ActivationQuantizer",
    "QuantizedConv2d",
    "QuantizedConvTranspose2d",
    "QuantizedOutput",
    "quantize_convolution",
]

SMALLEST_SCALE = 1e-8
"""Of a tensor, or a channel of a weight, that is all zero."""


class ActivationQuantizer(nn.Module):
    """Round a tensor to 256 levels, ``(round(x / scale + zero_point) - zero_point) * scale``, once it has a range.

    Scale and zero point are buffers in float32; the zero point is rounded when used, because averages of integers (EMA,
    a moving range) would get stuck.

    Args:
        symmetric: signed levels around a zero point of 0, as TensorRT wants; otherwise unsigned ones from the least to
            the largest value, as CPUs want.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.lowest, self.highest = (-128, 127) if symmetric else (0, 255)
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("zero_point", torch.zeros(()))
        self.is_calibrated = False  # as a Python flag, because reading the scale would stall a GPU
        self.enabled = True
        self.momentum = 0.0
        self.exporting = False
        self.histogram: Histogram | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, rounded; the shape and dtype stay."""
        if self.histogram is not None:
            self.histogram.collect(x)
        if not (self.enabled and self.is_calibrated):
            return x
        if self.exporting:
            return quantize_dequantize(x, self.scale, self.zero_point, torch.int8 if self.symmetric else torch.uint8)
        if self.momentum and self.training:
            self._follow(x.detach())
        zero_point = self.zero_point.round().to(torch.int32)
        rounded = torch.fake_quantize_per_tensor_affine(
            x.float(), self.scale.float(), zero_point, self.lowest, self.highest
        )
        return rounded.to(x.dtype)

    @property
    def range(self) -> tuple[Tensor, Tensor]:
        """The least and the largest value that are not clipped, as tensors without dimensions."""
        return (self.lowest - self.zero_point) * self.scale, (self.highest - self.zero_point) * self.scale

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Choose scale and zero point so that the values from ``low`` to ``high``, and zero, are not clipped."""
        low, high = low.float().clamp(max=0), high.float().clamp(min=0)
        if self.symmetric:
            scale = (torch.maximum(-low, high) / self.highest).clamp(min=SMALLEST_SCALE)
            zero_point = torch.zeros_like(scale)
        else:
            scale = ((high - low) / (self.highest - self.lowest)).clamp(min=SMALLEST_SCALE)
            zero_point = self.lowest - low / scale
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        self.is_calibrated = True

    def _follow(self, x: Tensor) -> None:
        """Move the range towards that of a training batch."""
        low, high = self.range
        least, largest = torch.aminmax(x.float())
        self.set_range(torch.lerp(low, least, self.momentum), torch.lerp(high, largest, self.momentum))

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self.is_calibrated = bool(self.scale > 0)

    def extra_repr(self) -> str:
        """Return the range, for ``print(detector)``."""
        low, high = (float(value) for value in self.range)
        return f"{low:.3g} to {high:.3g}" if self.is_calibrated else "not calibrated"


class QuantizedConvolution(nn.Module):
    """What quantized convolutions share; see :func:`quantize_convolution`.

    Attributes:
        weight_bits: integers of the weight have as many bits.
        weight_enabled: round the weight.
        input_quantizer: rounds the input where no layer before does.
        output_quantizer: rounds the output where another quantized layer than an activation reads it.
    """

    weight: Tensor
    weight_bits: int
    weight_enabled: bool
    channel_axis: int
    input_quantizer: ActivationQuantizer | None
    output_quantizer: ActivationQuantizer | None

    def rounded_weight(self) -> Tensor:
        """Return the weight as the integers represent it; gradients pass as if it were not rounded."""
        if "weight_integers" in self._buffers:  # on the way into an ONNX file
            integers, scale = cast(Tensor, self.weight_integers), cast(Tensor, self.weight_scale)
            return dequantize(integers, scale, self.channel_axis)
        if not self.weight_enabled:
            return self.weight
        highest = 2 ** (self.weight_bits - 1) - 1
        scale = self.scale_of_weight()
        zero_points = torch.zeros_like(scale, dtype=torch.int32)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(
            self.weight.float(), scale, zero_points, self.channel_axis, -highest, highest
        )
        return rounded.to(self.weight.dtype)

    @torch.no_grad()
    def scale_of_weight(self) -> Tensor:
        """Return ``(out_channels,)`` the step between the integers of each output channel."""
        others = [axis for axis in range(self.weight.ndim) if axis != self.channel_axis]
        largest = self.weight.detach().float().abs().amax(others)
        scale: Tensor = (largest / (2 ** (self.weight_bits - 1) - 1)).clamp(min=SMALLEST_SCALE)
        return scale

    @torch.no_grad()
    def store_integers(self) -> None:
        """Keep the weight as int8 integers and their scale, for a graph that holds nothing else."""
        scale = self.scale_of_weight()
        shape = [-1 if axis == self.channel_axis else 1 for axis in range(self.weight.ndim)]
        self.register_buffer("weight_integers", (self.weight / scale.view(shape)).round().to(torch.int8))
        self.register_buffer("weight_scale", scale)

    def _rounded_input(self, x: Tensor) -> Tensor:
        return x if self.input_quantizer is None else cast(Tensor, self.input_quantizer(x))

    def _rounded_output(self, x: Tensor) -> Tensor:
        return x if self.output_quantizer is None else cast(Tensor, self.output_quantizer(x))


class QuantizedConv2d(QuantizedConvolution, nn.Conv2d):
    """A convolution with rounded weights."""

    channel_axis = 0

    def forward(self, x: Tensor) -> Tensor:
        """Map as ``nn.Conv2d`` does."""
        return self._rounded_output(self._conv_forward(self._rounded_input(x), self.rounded_weight(), self.bias))


class QuantizedConvTranspose2d(QuantizedConvolution, nn.ConvTranspose2d):
    """A transposed convolution, of one group, with rounded weights."""

    channel_axis = 1

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # without output_size, which no layer passes
        """Map as ``nn.ConvTranspose2d`` does."""
        y = nn.functional.conv_transpose2d(
            self._rounded_input(x),
            self.rounded_weight(),
            self.bias,
            self.stride,
            cast(tuple[int, ...], self.padding),
            self.output_padding,
            self.groups,
            self.dilation,
        )
        return self._rounded_output(y)


_QUANTIZED = {nn.Conv2d: QuantizedConv2d, nn.ConvTranspose2d: QuantizedConvTranspose2d}


def quantize_convolution(conv: nn.Module, weight_bits: int) -> QuantizedConvolution:
    """Turn a convolution, in place, into one that rounds its weight; parameters and their names stay."""
    conv.__class__ = _QUANTIZED[type(conv)]
    quantized = cast(QuantizedConvolution, conv)
    quantized.weight_bits = weight_bits
    quantized.weight_enabled = True
    quantized.input_quantizer = None
    quantized.output_quantizer = None
    return quantized


class QuantizedOutput(nn.Module):
    """A module without parameters, whose output is rounded.

    Args:
        inner: the module.
        quantizer: rounds the output.
        input_quantizer: rounds the only input too: the output of a convolution before an activation that integer
            kernels do not know.
    """

    def __init__(
        self, inner: nn.Module, quantizer: ActivationQuantizer, input_quantizer: ActivationQuantizer | None = None
    ) -> None:
        super().__init__()
        self.inner = inner
        self.quantizer = quantizer
        self.input_quantizer = input_quantizer

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return what the module returns, rounded."""
        if self.input_quantizer is not None:
            inputs = (self.input_quantizer(*inputs),)
        return cast(Tensor, self.quantizer(self.inner(*inputs)))
