"""Compare the detections of an exported file with those of the detector, at several sizes and numbers of images."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.data.transforms.letterbox import letterbox, resized
from detlit.errors import ConfigurationError, ExportError
from detlit.export.detections import read_detections
from detlit.export.graph import DecodedDetector
from detlit.export.session import Session
from detlit.export.verify import FLOAT, QUANTIZED, Tolerance
from detlit.models.detector import Detector
from detlit.postprocess import NMSPostPredictionCallback
from detlit.quantization.calibration import named_quantizers
from detlit.structures import Detection

__all__ = ["HALF", "Comparison", "Row", "compare"]

HALF = Tolerance(max_box=2.0, mean_box=0.15, max_score=0.02, max_score_drop=5e-3)
"""How far a file in float16 may be from the detector."""

BATCHES = (1, 3, 8)
SIZES = ((256, 256), (320, 448), (640, 640))

REACH = 8
"""Pixels within which a box is a counterpart of another."""


@dataclass(frozen=True)
class Row:
    """One size and number of images.

    Attributes:
        size: (height, width) of the network input.
        batch: number of images.
        detections: of the detector.
        unmatched: detections of one side that the other does not have, and not because their scores, as far as they may
            differ, are on either side of the threshold; in a file of integers neither because its suppression decided
            otherwise, as far as boxes and scores may differ.
        max_box: largest difference of a side, in pixels.
        max_score: largest difference of a score.
    """

    size: tuple[int, int]
    batch: int
    detections: int
    unmatched: int
    max_box: float
    max_score: float


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found; as a string, a table to print.

    Attributes:
        runtime: that ran the file.
        rows: one for each size and number of images.
        tolerance: how far they may be apart.
        quantized: integers round otherwise where they meet a tie: detections at the border may differ.
    """

    runtime: str
    rows: list[Row]
    tolerance: Tolerance
    quantized: bool

    @property
    def failures(self) -> list[Row]:
        """The rows that are not good."""
        return [
            row
            for row in self.rows
            if not (row.max_box <= self.tolerance.max_box and row.max_score <= self.tolerance.max_score)
            or row.unmatched > (0.05 * row.detections if self.quantized else 0)
        ]

    def __str__(self) -> str:
        """Return the table."""
        lines = [
            f"{'size':>9}{'batch':>7}{'detections':>12}{'unmatched':>11}{'max px':>10}{'max score':>11}  {self.runtime}"
        ]
        for row in self.rows:
            size, mark = f"{row.size[0]}x{row.size[1]}", "NOT GOOD" if row in self.failures else "ok"
            line = f"{size:>9}{row.batch:7}{row.detections:12}{row.unmatched:11}"
            lines.append(f"{line}{row.max_box:10.2g}{row.max_score:11.2g}  {mark}")
        return "\n".join(lines)

    def require(self) -> "Comparison":
        """Return the comparison of a good file.

        Raises:
            ExportError: it is not one.
        """
        if self.failures:
            box, score = (max(getattr(row, name) for row in self.failures) for name in ("max_box", "max_score"))
            raise ExportError(
                f"the file differs from the detector in {len(self.failures)} of {len(self.rows)} comparisons, by up to "
                f"{box:.3g} pixels (at most {self.tolerance.max_box:g}), {score:.3g} in the score (at most "
                f"{self.tolerance.max_score:g}) and {sum(row.unmatched for row in self.failures)} detections that one "
                "side lacks: do not use it."
            )
        return self


def compare(
    detector: Detector,
    session: Session,
    images: Sequence[NDArray[np.uint8]],
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    batches: Sequence[int] = BATCHES,
    half: bool = False,
) -> Comparison:
    """Compare the detections of an exported file with those of the detector in torch, on real images.

    Args:
        detector: what the file was exported from.
        session: the file.
        images: ``(H, W, 3)`` uint8 RGB; repeated where a batch has more.
        sizes: (height, width) of the network input, where the file takes any; besides the detector's own.
        batches: numbers of images, where the file takes any.
        half: the file computes in float16.

    Raises:
        ConfigurationError: nothing is detected on the images, so that nothing can be compared.
    """
    dynamic = session.metadata["dynamic"]
    own = detector.preprocessing.size
    each = [own, *(size for size in sizes if size != own)] if "size" in dynamic else [own]
    reference = DecodedDetector(copy.deepcopy(detector).cpu().float().eval().fuse(full=True))
    callback = NMSPostPredictionCallback(**session.metadata["post_prediction"])
    quantized = bool(named_quantizers(detector))
    tolerance = QUANTIZED if quantized else HALF if half else FLOAT
    rows = [
        _row(reference, callback, session, _letterboxed(images, detector, size, batch), tolerance, quantized)
        for size in each
        for batch in (batches if "batch" in dynamic else (1,))
    ]
    if not any(row.detections for row in rows):
        raise ConfigurationError(
            f"nothing on the images scores above {callback.score_threshold}, so nothing can be compared: give images "
            "with objects, and a trained detector."
        )
    return Comparison(session.name, rows, tolerance, quantized)


def _letterboxed(images: Sequence[NDArray[np.uint8]], detector: Detector, size: tuple[int, int], batch: int) -> Tensor:
    preprocessing = resized(detector.preprocessing, size)
    chosen = [letterbox(images[index % len(images)], preprocessing) for index in range(batch)]
    return torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def _row(
    reference: DecodedDetector,
    callback: NMSPostPredictionCallback,
    session: Session,
    images: Tensor,
    tolerance: Tolerance,
    quantized: bool,
) -> Row:
    size = (images.shape[2], images.shape[3])
    true_boxes, true_scores = reference(images)
    expected = callback.suppress(true_boxes, true_scores, size)
    inputs = images.float() / 255 if session.metadata["input"] == "float32" else images
    outputs = session.outputs(inputs.numpy())
    if session.metadata["nms"] == "none":
        found = callback.suppress(torch.from_numpy(outputs["boxes"]), torch.from_numpy(outputs["scores"]), size)
    else:
        found = read_detections(outputs, session.metadata["nms"], len(images))
    sure = callback.score_threshold + tolerance.max_score
    if quantized:  # rounding may turn a decision of the suppression: of two nearly equal boxes, it keeps the other one
        missed = [missing(*both, callback, tolerance) for both in zip(expected, found, strict=True)]
        nearest = [to_candidates(*each, tolerance, sure) for each in zip(found, true_boxes, true_scores, strict=True)]
        strays, boxes, scores = zip(*nearest, strict=True)
        unmatched = (*missed, *strays)
    else:
        pairs = [differences(*both, sure) for both in zip(expected, found, strict=True)]
        unmatched, boxes, scores = zip(*pairs, strict=True)
    return Row(
        size, len(images), sum(len(each["scores"]) for each in expected), sum(unmatched), max(boxes), max(scores)
    )


def differences(expected: Detection, found: Detection, sure: float) -> tuple[int, float, float]:
    """Return how many detections have no counterpart, and the largest differences of box and score of those that have.

    A counterpart is the nearest box of the class, within :data:`REACH` pixels; each has one. Detections that score less
    than ``sure`` may lack theirs: it may be below the threshold.
    """
    ours, theirs = len(expected["scores"]), len(found["scores"])
    if not ours or not theirs:
        return int((expected["scores"] > sure).sum() + (found["scores"] > sure).sum()), 0.0, 0.0
    distance = (expected["boxes"][:, None] - found["boxes"][None]).abs().amax(-1)
    distance = distance.masked_fill(expected["labels"][:, None] != found["labels"][None], torch.inf)
    nearest, partner = distance.min(dim=1)
    matched = (nearest < REACH) & (distance.argmin(dim=0)[partner] == torch.arange(ours))
    alone = torch.ones(theirs, dtype=torch.bool)
    alone[partner[matched]] = False
    unmatched = int((expected["scores"][~matched] > sure).sum() + (found["scores"][alone] > sure).sum())
    if not bool(matched.any()):
        return unmatched, 0.0, 0.0
    scores = (expected["scores"] - found["scores"][partner])[matched].abs()
    return unmatched, float(nearest[matched].max()), float(scores.max())


def missing(expected: Detection, found: Detection, callback: NMSPostPredictionCallback, tolerance: Tolerance) -> int:
    """Return how many detections a file of integers lacks.

    It lacks one that surely scores above the threshold, if it found no detection that is it or may have suppressed it:
    one that scores as much and overlaps it too far, as far as scores and boxes may differ.

    Args:
        expected: of the detector.
        found: of the file.
        callback: the suppression of both.
        tolerance: how far box and score may be apart.
    """
    others, boxes = found["boxes"][None], expected["boxes"][:, None]
    closer = boxes + (others - boxes).clamp(-tolerance.max_box, tolerance.max_box)
    shared = (torch.minimum(closer, others)[..., 2:] - torch.maximum(closer, others)[..., :2]).clamp(min=0).prod(-1)
    overlap = shared / (_area(closer) + _area(others) - shared)
    rivals = (overlap > callback.nms_threshold) & (found["scores"] > expected["scores"][:, None] - tolerance.max_score)
    if not callback.class_agnostic_nms:
        rivals &= expected["labels"][:, None] == found["labels"]
    sure = expected["scores"] > callback.score_threshold + tolerance.max_score
    return int((sure & ~rivals.any(dim=1)).sum())


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def to_candidates(
    found: Detection, boxes: Tensor, scores: Tensor, tolerance: Tolerance, sure: float
) -> tuple[int, float, float]:
    """Compare detections with the nearest predictions of their class.

    The nearest is the one with the least difference in units of the tolerance, be it of the box or of the score.

    Args:
        found: of a file, after suppression.
        boxes: ``(A, 4)`` of the detector for the same image, before suppression.
        scores: ``(A, C)``.
        tolerance: how far box and score may be apart.
        sure: detections that score less need no prediction.

    Returns:
        How many detections have no prediction within :data:`REACH` pixels, and the largest differences of box and score
        of those that have.
    """
    by_box = (found["boxes"][:, None] - boxes[None]).abs().amax(-1)
    by_score = (found["scores"][:, None] - scores.T[found["labels"]]).abs()
    anchor = torch.maximum(by_box / tolerance.max_box, by_score / tolerance.max_score).argmin(dim=1)[:, None]
    far_boxes, far_scores = by_box.gather(1, anchor), by_score.gather(1, anchor)
    near = far_boxes < REACH
    strays = int((~near[:, 0] & (found["scores"] > sure)).sum())
    if not bool(near.any()):
        return strays, 0.0, 0.0
    return strays, float(far_boxes[near].max()), float(far_scores[near].max())
