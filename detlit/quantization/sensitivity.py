"""Which layers suffer most from rounding: round one at a time, and compare what the network returns."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detlit.models.detector import Detector
from detlit.models.layers.fusion import Fusable
from detlit.quantization.calibration import set_rounding, without_rounding
from detlit.quantization.layers import ActivationQuantizer, QuantizedConvolution
from detlit.structures import RawPredictions

__all__ = ["Sensitivity", "format_sensitivity", "sensitivity"]


@dataclass(frozen=True)
class Sensitivity:
    """What rounding one layer does.

    Attributes:
        name: of the layer, as ``skip`` takes it: a convolution with its activation, a sum, or a concatenation.
        value: signal-to-noise ratio of the network's output in decibels, low where the layer is sensitive; or how much
            lower the score is, high where it is.
    """

    name: str
    value: float


@torch.no_grad()
def sensitivity(
    detector: Detector, batches: Sequence[Tensor], score: Callable[[Detector], float] | None = None
) -> list[Sensitivity]:
    """Return every layer of a quantized and calibrated detector, the most sensitive first.

    As for YOLOv6, https://arxiv.org/abs/2209.02976, section 2.5.2.

    Args:
        detector: it is the same afterwards.
        batches: images ``(B, in_channels, H, W)`` for the signal-to-noise ratio; not read where ``score`` is given.
        score: returns how good a detector is, such as its mAP: exact, and slower by the number of images.
    """
    was_training = detector.training
    detector.eval()
    results = []
    with without_rounding(detector):
        base = None if score is None else score(detector)
        device = next(detector.parameters()).device
        batches = [batch.to(device) for batch in batches]
        expected = [] if score is not None else [detector(batch) for batch in batches]
        for name, parts in layer_groups(detector).items():
            set_rounding(parts, [True] * len(parts))
            if score is None or base is None:
                value = _output_ratio(expected, [detector(batch) for batch in batches])
            else:
                value = base - score(detector)
            results.append(Sensitivity(name, value))
            set_rounding(parts, [False] * len(parts))
    detector.train(was_training)
    return sorted(results, key=lambda result: result.value, reverse=score is not None)


def layer_groups(detector: nn.Module) -> dict[str, list[nn.Module]]:
    """Return what rounds, by the layer it belongs to; a quantizer that layers share belongs to the first."""
    modules = dict(detector.named_modules())
    groups: dict[str, list[nn.Module]] = defaultdict(list)
    for name, part in modules.items():
        if isinstance(part, (ActivationQuantizer, QuantizedConvolution)):
            groups[_layer_of(name, modules)].append(part)
    return dict(groups)


def _layer_of(name: str, modules: dict[str, nn.Module]) -> str:
    """Return the block of a convolution and its activation; a sum, concatenation or bare convolution is its own."""
    above = name
    while above:
        if isinstance(modules[above], Fusable):
            return above
        above = above.rpartition(".")[0]
    return name.rpartition(".")[0] if isinstance(modules[name], ActivationQuantizer) else name


def _output_ratio(expected: Sequence[RawPredictions], actual: Sequence[RawPredictions]) -> float:
    """Return the signal-to-noise ratio of both kinds of logits, each against its own spread, in decibels."""
    ratios = []
    for field in ("cls_logits", "reg_logits"):
        true = torch.cat([getattr(predictions, field).flatten() for predictions in expected]).double()
        rounded = torch.cat([getattr(predictions, field).flatten() for predictions in actual]).double()
        ratios.append((rounded - true).square().mean() / true.var().clamp(min=1e-12))
    return float(-10 * torch.log10(torch.stack(ratios).mean().clamp(min=1e-20)))


def format_sensitivity(results: Sequence[Sensitivity], by_score: bool = False, worst: int | None = None) -> str:
    """Return a table in plain text of all layers, or of the ``worst`` ones."""
    rows = results[:worst]
    width = max([len(row.name) for row in rows], default=5)
    head = "drop" if by_score else "SQNR dB"
    lines = [f"{'layer':{width}}  {head:>8}"]
    return "\n".join(lines + [f"{row.name:{width}}  {row.value:8.{4 if by_score else 1}f}" for row in rows])
