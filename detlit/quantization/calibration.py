"""Calibration: find the range of every activation on some images."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detlit.data.transforms.letterbox import letterbox
from detlit.errors import ConfigurationError
from detlit.quantization.histogram import Histogram, merge_over_ranks
from detlit.quantization.layers import ActivationQuantizer, QuantizedConvolution
from detlit.quantization.ranges import Method, check_method, choose_range
from detlit.quantization.report import LayerReport, make_report
from detlit.structures import Preprocessing

if TYPE_CHECKING:
    from detlit.models.detector import Detector

__all__ = [
    "calibrate",
    "calibration_batches",
    "check_numbers",
    "named_quantizers",
    "needs_calibration",
    "without_rounding",
]


class ImageSource(Protocol):
    """Images by index, as every :class:`~detlit.data.DetectionDataset` has them."""

    def __len__(self) -> int:
        """Return the number of images."""

    def load_image(self, index: int) -> NDArray[np.uint8]:
        """Return image ``(H, W, 3)`` uint8 RGB."""


def calibration_batches(
    images: ImageSource,
    preprocessing: Preprocessing,
    *,
    num_batches: int,
    batch_size: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Tensor]:
    """Yield exactly ``num_batches`` batches of training images, letterboxed as in validation, without augmentation.

    Args:
        images: the training images.
        preprocessing: of the detector.
        num_batches: batches of this process.
        batch_size: images in each.
        seed: of the choice of images. None is taken twice, unless there are too few.
        rank: of this process; each takes other images.
        world_size: number of processes.

    Yields:
        ``(batch_size, 3, H, W)`` uint8 RGB.

    Raises:
        ConfigurationError: no batch, or no image in it.
    """
    check_numbers(num_batches, batch_size)
    wanted = num_batches * batch_size * world_size
    order = np.random.default_rng(seed).permutation(len(images))
    chosen = np.resize(order, wanted)[rank::world_size].reshape(num_batches, batch_size)
    for indices in chosen:
        batch = np.stack([letterbox(images.load_image(int(index)), preprocessing) for index in indices])
        yield torch.from_numpy(batch).permute(0, 3, 1, 2)


def check_numbers(num_batches: int, batch_size: int) -> None:
    """Refuse to calibrate on nothing.

    Raises:
        ConfigurationError: no batch, or no image in it.
    """
    if num_batches < 1 or batch_size < 1:
        raise ConfigurationError(
            f"{num_batches} batches of {batch_size} images leave none to calibrate on: choose 1 or more of each."
        )


def named_quantizers(module: nn.Module) -> dict[str, ActivationQuantizer]:
    """Return the activation quantizers of a module by name; one that several tensors share has its first name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, ActivationQuantizer)}


def needs_calibration(module: nn.Module) -> bool:
    """Tell whether an activation of a module has no range yet."""
    return any(not quantizer.is_calibrated for quantizer in named_quantizers(module).values())


@contextmanager
def without_rounding(module: nn.Module) -> Iterator[None]:
    """Let a quantized module compute as before it was quantized."""
    parts = [part for part in module.modules() if isinstance(part, (ActivationQuantizer, QuantizedConvolution))]
    before = [part.enabled if isinstance(part, ActivationQuantizer) else part.weight_enabled for part in parts]
    try:
        set_rounding(parts, [False] * len(parts))
        yield
    finally:
        set_rounding(parts, before)


def set_rounding(parts: Iterable[nn.Module], enabled: Iterable[bool]) -> None:
    """Switch rounding of activation quantizers, and of the weights of quantized convolutions, on or off."""
    for part, on in zip(parts, enabled, strict=True):
        if isinstance(part, ActivationQuantizer):
            part.enabled = on
        elif isinstance(part, QuantizedConvolution):
            part.weight_enabled = on


@torch.no_grad()
def calibrate(
    detector: "Detector | nn.Module", batches: Iterable[Any], method: Method = "mse", *, percentile: float = 99.999
) -> list[LayerReport]:
    """Choose the range of every activation, in place, from one pass over some images without rounding.

    In a process group, the counts of all processes are merged, so that all choose the same: a collective call.

    Args:
        detector: a quantized detector, or any module with activation quantizers in it.
        batches: what the detector is called with, e.g. of :func:`calibration_batches`.
        method: how to choose a range, see :data:`~detlit.quantization.ranges.Method`.
        percentile: share of the values that ``"percentile"`` does not clip, in percent.

    Returns:
        How well each layer survives, in the order of the network.

    Raises:
        ConfigurationError: nothing to calibrate, no batch, values that are not finite, and what
            :func:`~detlit.quantization.ranges.check_method` refuses.
    """
    check_method(method, percentile)
    quantizers = named_quantizers(detector)
    if not quantizers:
        raise ConfigurationError("the detector has no quantized activation to calibrate: quantize it first.")
    histograms = {name: Histogram() for name in quantizers}
    modes = {part: part.training for part in detector.modules()}
    device = next(detector.parameters()).device
    detector.eval()
    try:
        for name, quantizer in quantizers.items():
            quantizer.histogram = histograms[name]
        with without_rounding(detector):
            for batch in batches:
                detector(batch.to(device))
    finally:
        for quantizer in quantizers.values():
            quantizer.histogram = None
        for part, mode in modes.items():
            part.training = mode
    if not any(int(histogram.counts.sum()) for histogram in histograms.values()):
        raise ConfigurationError("there was no image to calibrate on: give at least one batch.")
    merge_over_ranks(list(histograms.values()))
    for name, quantizer in quantizers.items():
        low, high = choose_range(histograms[name], method, percentile=percentile, symmetric=quantizer.symmetric)
        quantizer.set_range(quantizer.scale.new_tensor(low), quantizer.scale.new_tensor(high))
    return make_report(detector, histograms)
