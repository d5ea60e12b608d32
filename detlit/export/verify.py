"""Compare an exported file with the detector it came from, before it is called done."""

import copy
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detlit.errors import ConfigurationError, ExportError
from detlit.export.graph import DecodedDetector
from detlit.export.lint import lint_tensorrt
from detlit.export.session import ExportedModel, OnnxSession, OpenVinoSession
from detlit.models.detector import Detector
from detlit.quantization.calibration import named_quantizers

__all__ = ["Parity", "Tolerance", "Verification", "verify"]

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images ``(B, 3, H, W)`` to boxes ``(B, A, 4)`` and scores ``(B, A, C)``."""

CONFIDENT = 0.3
"""Boxes of a lower score are not compared: they move far for nothing."""


@dataclass(frozen=True)
class Tolerance:
    """How far an exported file may be from the detector.

    Rounding breaks ties by the order of additions, and a flip spreads: integers are compared on confident boxes, with
    more room. Random networks do not pass, their boxes depend on single roundings.

    Attributes:
        max_box: largest difference of a side of a confident box, in pixels.
        mean_box: mean difference of those, in pixels.
        max_score: largest difference of the scores of confident boxes.
        max_score_drop: how much lower, or higher, the score (mAP) of the whole file may be.
    """

    max_box: float
    mean_box: float
    max_score: float
    max_score_drop: float


FLOAT = Tolerance(max_box=1e-2, mean_box=1e-3, max_score=1e-4, max_score_drop=1e-3)
QUANTIZED = Tolerance(max_box=2.0, mean_box=0.15, max_score=0.1, max_score_drop=5e-3)


@dataclass(frozen=True)
class Parity:
    """One runtime against torch.

    Attributes:
        runtime: its name.
        boxes: confident boxes that were compared.
        max_box: largest difference of their sides, in pixels.
        mean_box: mean difference of their sides, in pixels.
        max_score: largest difference of their scores.
        score: of all detections, such as the mAP; ``None`` where nobody asked.
    """

    runtime: str
    boxes: int
    max_box: float
    mean_box: float
    max_score: float
    score: float | None


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found; as a string, lines to print.

    Attributes:
        parities: one for each runtime.
        score: of the detector in torch.
        operators: how often ONNX Runtime runs each operator, after its optimizations.
        size: of the file in bytes.
        size_ratio: of the file over that of the float file, if one was given.
        speed_ratio: how many times faster it is than the float file, one thread, if one was given.
        failures: sentences on what is wrong; none for a good file.
    """

    parities: list[Parity]
    score: float | None
    operators: dict[str, int]
    size: int
    size_ratio: float | None
    speed_ratio: float | None
    failures: list[str] = field(default_factory=list)

    @property
    def integer_share(self) -> float:
        """Share of the convolutions that ONNX Runtime computes with integers."""
        integer, floating = self.operators.get("QLinearConv", 0), _float_convolutions(self.operators)
        return integer / max(1, integer + floating)

    def require(self) -> "Verification":
        """Return the verification of a good file.

        Raises:
            ExportError: it is not one.
        """
        if self.failures:
            raise ExportError(f"the exported file is not good: {'; '.join(self.failures)}.")
        return self

    def __str__(self) -> str:
        """Return a table of the runtimes, and a line on the file."""
        lines = [f"{'':14}{'boxes':>7}{'max px':>10}{'mean px':>10}{'max score':>11}{'mAP':>9}{'- torch':>9}"]
        if self.score is not None:
            lines.append(f"{'torch':14}{'':38}{self.score:9.4f}")
        for parity in self.parities:
            row = f"{parity.runtime:14}{parity.boxes:7}{parity.max_box:10.2g}{parity.mean_box:10.2g}"
            row += f"{parity.max_score:11.2g}"
            if parity.score is not None and self.score is not None:
                row += f"{parity.score:9.4f}{parity.score - self.score:+9.4f}"
            lines.append(row)
        integer = self.operators.get("QLinearConv", 0)
        total = integer + _float_convolutions(self.operators)
        lines.append(f"convolutions on integers in ONNX Runtime: {integer} of {total} ({self.integer_share:.1%})")
        size = f"size: {self.size / 1e6:.2f} MB"
        lines.append(size if self.size_ratio is None else f"{size}, {self.size_ratio:.3f} of float")
        if self.speed_ratio is not None:
            lines.append(f"speed: {self.speed_ratio:.2f} times float, ONNX Runtime, one thread")
        return "\n".join([*lines, *(f"NOT GOOD: {failure}" for failure in self.failures)])


def verify(
    detector: Detector,
    path: str | Path,
    batches: Sequence[Tensor],
    *,
    float_path: str | Path | None = None,
    score: Callable[[Predict], float] | None = None,
    tolerance: Tolerance | None = None,
) -> Verification:
    """Compare an ONNX file with its detector on real images, in ONNX Runtime and, if it is installed, in OpenVINO.

    Args:
        detector: what the file was exported from.
        path: the file.
        batches: images ``(B, in_channels, H, W)`` uint8; give several sizes and numbers of images, where the file takes
            them.
        float_path: a file of the detector before it was quantized, to compare size and speed with.
        score: how good predictions are, such as their mAP on a validation split.
        tolerance: how far they may be apart; by default tight for floating point and wider for integers.

    Raises:
        ConfigurationError: no images, or none with a confident box, on which nothing can be told.
        MissingExtraError: ONNX Runtime is not installed.
    """
    quantized = bool(named_quantizers(detector))
    tolerance = tolerance or (QUANTIZED if quantized else FLOAT)
    reference = DecodedDetector(copy.deepcopy(detector).cpu().float().eval().fuse(full=True))
    with torch.no_grad():
        expected = [reference(batch) for batch in batches]
    base = score(torch.no_grad()(reference)) if score is not None else None
    runtimes: list[ExportedModel] = [OnnxSession(path)]
    # OpenVINO computes signed activations wrongly, silently: they are for TensorRT alone.
    signed = any(quantizer.symmetric for quantizer in named_quantizers(detector).values())
    if find_spec("openvino") is not None and not signed:
        runtimes.append(OpenVinoSession(path))
    parities = [_parity(runtime, batches, expected, score) for runtime in runtimes]
    failures = [failure for parity in parities for failure in _failures(parity, base, tolerance)]
    if signed:
        failures += lint_tensorrt(path)
    size, operators = Path(path).stat().st_size, count_operators(path)
    size_ratio = speed_ratio = None
    if float_path is not None:
        size_ratio = size / Path(float_path).stat().st_size
        speed_ratio = _speed_ratio(path, float_path, batches[0][:1])
    return Verification(parities, base, operators, size, size_ratio, speed_ratio, failures)


def count_operators(path: str | Path) -> dict[str, int]:
    """Return how often each operator occurs in what ONNX Runtime makes of a file, on this processor."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        OnnxSession(path, optimized_path=optimized)
        return dict(Counter(node.op_type for node in onnx.load(optimized).graph.node))


def _float_convolutions(operators: dict[str, int]) -> int:
    return sum(count for name, count in operators.items() if name in ("Conv", "FusedConv"))


def _parity(
    runtime: ExportedModel,
    batches: Sequence[Tensor],
    expected: Sequence[tuple[Tensor, Tensor]],
    score: Callable[[Predict], float] | None,
) -> Parity:
    boxes, scores = [], []
    for batch, (true_boxes, true_scores) in zip(batches, expected, strict=True):
        found_boxes, found_scores = runtime(batch)
        confident = true_scores.amax(-1) > CONFIDENT
        boxes.append((found_boxes - true_boxes)[confident].abs())
        scores.append((found_scores - true_scores)[confident].abs())
    differences = torch.cat(boxes) if boxes else torch.zeros(0)
    if len(differences) == 0:
        raise ConfigurationError(
            f"no box on the images scores above {CONFIDENT}, so nothing can be compared: give images with objects, and "
            "a trained detector."
        )
    return Parity(
        runtime.name,
        len(differences),
        float(differences.max()),
        float(differences.mean()),
        float(torch.cat(scores).max()),
        None if score is None else score(runtime),
    )


def _failures(parity: Parity, base: float | None, tolerance: Tolerance) -> list[str]:
    """Return what a runtime has wrong; a value that is no number is wrong too."""
    measured = [
        ("a box is off by {:.3g} pixels", parity.max_box, tolerance.max_box),
        ("boxes are off by {:.3g} pixels on average", parity.mean_box, tolerance.mean_box),
        ("a score is off by {:.3g}", parity.max_score, tolerance.max_score),
    ]
    if parity.score is not None and base is not None:
        measured.append(("the mAP is off by {:.4f}", abs(parity.score - base), tolerance.max_score_drop))
    return [
        f"in {parity.runtime} {text.format(value)} (at most {limit:g})"
        for text, value, limit in measured
        if math.isnan(value) or value > limit
    ]


def _speed_ratio(path: str | Path, float_path: str | Path, image: Tensor, rounds: int = 9) -> float:
    """Return how many times faster a file is than another: the median over interleaved runs, in CPU time."""
    sessions = [OnnxSession(file, threads=1) for file in (float_path, path)]
    pixels = image.numpy()
    ratios = []
    for _ in range(rounds + 1):
        seconds = [_cpu_seconds(session, pixels) for session in sessions]
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios[1:])  # the first warms up


def _cpu_seconds(session: OnnxSession, pixels: Any) -> float:
    start = time.process_time()
    session.run(pixels)
    return time.process_time() - start
