"""Which tensor reaches which layer: run a detector once, and look."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detlit.models.layers import Add, Concat
from detlit.quantization.layers import ActivationQuantizer, QuantizedConvolution, QuantizedOutput

if TYPE_CHECKING:
    from detlit.models.detector import Detector

__all__ = ["complete_quantizers"]


def complete_quantizers(
    detector: "Detector", new_quantizer: Callable[[], ActivationQuantizer], share_concatenated: bool
) -> None:
    """Add the quantizers that follow from how layers are connected.

    A convolution rounds its input where no layer before does: the image, and what comes out of layers in floating
    point. A convolution that a sum or concatenation reads without an activation between rounds its output.

    Args:
        detector: in evaluation mode, with its convolutions, activations, sums and concatenations replaced.
        new_quantizer: makes a quantizer.
        share_concatenated: let one quantizer round all that a concatenation reads, and what it returns.
    """
    tensors = _Tensors(new_quantizer)
    hooks = [hook for part in detector.modules() for hook in tensors.hooks_of(part)]
    side = 2 * max(*detector.backbone.strides, *detector.neck.strides)
    device = next(detector.parameters()).device
    try:
        with torch.no_grad():
            detector(torch.zeros(1, detector.backbone.in_channels, side, side, dtype=torch.uint8, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    if share_concatenated:
        for group in tensors.concatenated:
            _share(detector, group)


class _Tensors:
    """Who made which tensor, in one forward pass."""

    def __init__(self, new_quantizer: Callable[[], ActivationQuantizer]) -> None:
        self.new_quantizer = new_quantizer
        self.rounded_by: dict[int, ActivationQuantizer] = {}
        self.made_by: dict[int, QuantizedConvolution] = {}
        self.concatenated: list[list[ActivationQuantizer]] = []
        self.alive: list[Tensor] = []  # so that no tensor takes the id of another

    def hooks_of(self, part: nn.Module) -> list[Any]:
        """Watch a module if it matters."""
        if isinstance(part, QuantizedConvolution):
            return [part.register_forward_pre_hook(self._before_conv), part.register_forward_hook(self._after_conv)]
        if isinstance(part, QuantizedOutput):
            before = part.register_forward_pre_hook(self._before_merge)
            return [before, part.register_forward_hook(self._after_output)]
        if isinstance(part, (nn.MaxPool2d, nn.Upsample)):
            return [part.register_forward_hook(self._after_choice)]
        return []

    def _before_conv(self, conv: QuantizedConvolution, inputs: tuple[Tensor]) -> None:
        if id(inputs[0]) not in self.rounded_by:
            conv.input_quantizer = self._placed(conv)

    def _after_conv(self, conv: QuantizedConvolution, inputs: tuple[Tensor], output: Tensor) -> None:
        self.alive.append(output)
        self.made_by[id(output)] = conv

    def _before_merge(self, part: QuantizedOutput, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(part.inner, (Add, Concat)):
            for x in inputs:
                if id(x) not in self.rounded_by and id(x) in self.made_by:
                    conv = self.made_by[id(x)]
                    conv.output_quantizer = self.rounded_by[id(x)] = self._placed(conv)
        if isinstance(part.inner, Concat):
            self.concatenated.append([*(self.rounded_by[id(x)] for x in inputs if id(x) in self.rounded_by)])
            self.concatenated[-1].append(part.quantizer)

    def _after_output(self, part: QuantizedOutput, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.alive.append(output)
        self.rounded_by[id(output)] = part.quantizer

    def _after_choice(self, part: nn.MaxPool2d | nn.Upsample, inputs: tuple[Tensor], output: Tensor) -> None:
        """Take the largest or nearest of rounded values for rounded: pooling and upsampling make no new ones."""
        chooses = isinstance(part, nn.MaxPool2d) or part.mode == "nearest"
        if chooses and id(inputs[0]) in self.rounded_by:
            self.alive.append(output)
            self.rounded_by[id(output)] = self.rounded_by[id(inputs[0])]

    def _placed(self, conv: QuantizedConvolution) -> ActivationQuantizer:
        return self.new_quantizer().to(conv.weight.device)


def _share(detector: nn.Module, group: list[ActivationQuantizer]) -> None:
    """Let the first quantizer of a group replace the others wherever they are."""
    first, others = group[0], group[1:]
    for part in detector.modules():
        for name, child in list(part.named_children()):
            if any(child is other for other in others):
                setattr(part, name, first)
