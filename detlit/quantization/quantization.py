"""Where a detector rounds: which layers are replaced, and which tensors get a quantizer.

Every tensor is rounded once, where it is made: after activations, sums and concatenations. Integer kernels find their
inputs and outputs that way; rounding at the inputs of convolutions alone would leave sums and concatenations, and the
convolutions before them, in floating point. Everything after the last convolutions (softmax, sigmoid, box arithmetic),
channel attention and foreign backbones compute in floating point.

YOLOv6's RepOptimizer and channel-wise distillation (https://arxiv.org/abs/2209.02976, section 2.5) are not here: they
make up for RepVGG blocks, whose branches merge late and into weights with heavy tails. QARepVGG blocks
(https://arxiv.org/abs/2212.01593), which YOLO-NAS is made of, merge into weights that 8 bits hold, and detlit merges
the branches first (partial fusion) and trains on what will be deployed. PP-YOLOE has plain RepVGG blocks: fine-tune it
with :class:`~detlit.callbacks.QuantizationAwareTraining`, or leave its worst layers in floating point.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, get_args

from torch import nn

from detlit.errors import ConfigurationError
from detlit.models.heads.ppyoloe import AttentionStem
from detlit.models.layers import Add, Concat, EffectiveSE
from detlit.models.quantized import DetectorQuantization
from detlit.quantization.dataflow import complete_quantizers
from detlit.quantization.layers import (
    ActivationQuantizer,
    QuantizedConvolution,
    QuantizedOutput,
    quantize_convolution,
)

if TYPE_CHECKING:
    from detlit.models.detector import Detector

__all__ = ["Backend", "Quantization"]

Backend = Literal["cpu", "tensorrt"]
"""Who will run the integers:

- ``"cpu"``: ONNX Runtime and OpenVINO; activations are unsigned with a zero point.
- ``"tensorrt"``: activations are signed, without zero point, and all inputs of a concatenation share one scale. On a
  CPU this is slower than floating point (ONNX Runtime), or less accurate (OpenVINO).
"""


class Quantization(DetectorQuantization):
    """Which layers of a detector compute with integers, and for whom.

    Args:
        backend: who will run the integers, see :data:`Backend`.
        skip: what stays in floating point: names of modules, as in ``model.freeze``, with all they contain, patterns of
            names (``*`` also matches dots), or names of classes, such as ``ConvTranspose2d``.
        weight_bits: bits of the weights, 2 to 8. 7 where a CPU adds 8-bit products in 16 bits, as x86 before VNNI does.

    Raises:
        ConfigurationError: an unknown backend, or bits out of range; in :meth:`apply`, a ``skip`` that matches nothing,
            nothing left to quantize, or a detector that is quantized already or has branches.
    """

    def __init__(self, backend: Backend = "cpu", skip: Sequence[str] = (), weight_bits: int = 8) -> None:
        if backend not in get_args(Backend):
            raise ConfigurationError(f"backend={backend!r} is unknown: choose one of {', '.join(get_args(Backend))}.")
        if not 2 <= weight_bits <= 8:
            raise ConfigurationError(f"weight_bits={weight_bits} is out of range: choose 2 to 8.")
        self.backend = backend
        self.skip = tuple(skip)
        self.weight_bits = weight_bits

    def __repr__(self) -> str:
        """Return the arguments, for errors and ``print(detector)``."""
        return f"Quantization(backend={self.backend!r}, skip={list(self.skip)}, weight_bits={self.weight_bits})"

    def apply(self, detector: "Detector") -> None:
        """Replace layers in place; :meth:`detlit.models.Detector.quantize` calls it."""
        if detector.fused is None:
            raise ConfigurationError("the branches of a detector are merged before it is quantized: call fuse() first.")
        if any(isinstance(part, QuantizedConvolution) for part in detector.modules()):
            raise ConfigurationError(
                "the detector is quantized already: start from one that is not, or write this one with detlit export."
            )
        modules = dict(detector.named_modules())
        skipped = self._skipped(modules)
        for name, part in modules.items():
            parent = modules.get(name.rpartition(".")[0])
            if name in skipped or not type(parent).__module__.startswith("detlit."):
                continue
            if type(part) in (nn.Conv2d, nn.ConvTranspose2d):
                if not isinstance(parent, (EffectiveSE, AttentionStem)):  # one pixel: nothing to gain
                    quantize_convolution(part, self.weight_bits)
            elif isinstance(part, (Add, Concat, nn.ReLU, nn.SiLU)):
                setattr(parent, name.rpartition(".")[2], self._with_rounded_output(part))
        if not any(isinstance(part, QuantizedConvolution) for part in detector.modules()):
            raise ConfigurationError(f"skip={list(self.skip)} leaves nothing to quantize: skip less.")
        complete_quantizers(detector, self._new_quantizer, share_concatenated=self.backend == "tensorrt")

    def _new_quantizer(self) -> ActivationQuantizer:
        return ActivationQuantizer(symmetric=self.backend == "tensorrt")

    def _with_rounded_output(self, part: nn.Module) -> QuantizedOutput:
        # A convolution's kernel ends in integers: ReLU is part of it, SiLU is not, except in TensorRT.
        separate = isinstance(part, nn.SiLU) and self.backend == "cpu"
        return QuantizedOutput(part, self._new_quantizer(), self._new_quantizer() if separate else None)

    def _skipped(self, modules: dict[str, nn.Module]) -> set[str]:
        """Return the names of the modules that stay as they are."""
        skipped: set[str] = set()
        for pattern in self.skip:
            roots = [
                name
                for name, part in modules.items()
                if name and (fnmatchcase(name, pattern) or type(part).__name__ == pattern)
            ]
            if not roots:
                raise ConfigurationError(
                    f"skip names {pattern!r}, which no layer of the detector is called: "
                    f"its parts are {', '.join(name for name in modules if name and '.' not in name)}."
                )
            skipped |= {name for name in modules for root in roots if name == root or name.startswith(f"{root}.")}
        return skipped
