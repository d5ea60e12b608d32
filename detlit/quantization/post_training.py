"""Post-training quantization: a float detector to a quantized one, without training."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.models.detector import Detector
from detlit.quantization.calibration import calibrate
from detlit.quantization.quantization import Quantization
from detlit.quantization.ranges import Method
from detlit.quantization.report import LayerReport
from detlit.quantization.sensitivity import Sensitivity, sensitivity

__all__ = ["Quantized", "quantize"]


@dataclass(frozen=True)
class Quantized:
    """What :func:`quantize` returns.

    Attributes:
        detector: quantized and calibrated, in evaluation mode.
        layers: how well each layer survives.
        ranking: the layers, the most sensitive first, if that was asked for.
    """

    detector: Detector
    layers: list[LayerReport]
    ranking: list[Sensitivity]


def quantize(
    detector: Detector,
    batches: Sequence[Tensor],
    quantization: Quantization | None = None,
    *,
    method: Method = "mse",
    percentile: float = 99.999,
    skip_sensitive: int = 0,
    max_drop: float | None = None,
    score: Callable[[Detector], float] | None = None,
) -> Quantized:
    """Quantize a copy of a detector, and leave its most sensitive layers in floating point if asked to.

    Args:
        detector: it is not changed.
        batches: calibration images ``(B, in_channels, H, W)``, e.g. of
            :func:`~detlit.quantization.calibration_batches`; the first two rank the layers.
        quantization: which layers, and for whom, ``Quantization()`` unless given.
        method: how to choose ranges, see :data:`~detlit.quantization.ranges.Method`.
        percentile: share of the values that ``"percentile"`` does not clip, in percent.
        skip_sensitive: layers that stay in floating point, the most sensitive ones, besides ``quantization.skip``.
        max_drop: leave out more layers, doubling their number, until the score is at most that much lower.
        score: how good a detector is, such as its mAP; needed for ``max_drop``.

    Raises:
        ConfigurationError: ``max_drop`` without ``score``, a negative number, or a drop that stays too large with every
            layer but one left out; and what :class:`Quantization` and :func:`calibrate` refuse.
    """
    if max_drop is not None and score is None:
        raise ConfigurationError("max_drop needs a score to measure the drop of: give score, such as the mAP.")
    if skip_sensitive < 0:
        raise ConfigurationError(f"skip_sensitive={skip_sensitive} is no number of layers: choose 0 or more.")
    quantization = quantization or Quantization()
    batches = list(batches)

    def quantized(skip: Sequence[str]) -> tuple[Detector, list[LayerReport]]:
        ours = Quantization(quantization.backend, (*quantization.skip, *skip), quantization.weight_bits)
        result = copy.deepcopy(detector).eval().quantize(ours)
        return result, calibrate(result, batches, method, percentile=percentile)

    result, layers = quantized(())
    if not skip_sensitive and max_drop is None:
        return Quantized(result, layers, [])
    ranking = sensitivity(result, batches[:2])
    if skip_sensitive:
        result, layers = quantized([row.name for row in ranking[:skip_sensitive]])
    if max_drop is None or score is None:
        return Quantized(result, layers, ranking)
    number, best = skip_sensitive, score(detector)
    while best - score(result) > max_drop:
        number = 2 * number or 1
        if number >= len(ranking):
            raise ConfigurationError(
                f"max_drop={max_drop} is out of reach: the score stays lower with {number // 2} layers left out; allow "
                "more, calibrate on more images, or fine-tune with QuantizationAwareTraining."
            )
        result, layers = quantized([row.name for row in ranking[:number]])
    return Quantized(result, layers, ranking)
