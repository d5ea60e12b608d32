"""The worst mistakes of a detector as pictures: what is there on the left, what was found on the right."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.errors import DetlitError
from detlit.metrics.errors import ERROR_KINDS
from detlit.metrics.quality import QualityReport
from detlit.metrics.tables import box_iou
from detlit.reports.gallery import mark_boxes
from detlit.reports.html import Picture

__all__ = ["ImageName", "LoadImage", "Mistake", "missed_objects", "mistake_pictures", "wrong_detections"]

LoadImage = Callable[[int], NDArray[np.uint8]]
"""Returns image number ``i`` of a report as ``(H, W, 3)`` uint8 RGB, in original pixels."""

ImageName = Callable[[int], str]
"""Returns what captions call image number ``i`` of a report."""

SIDE = 300
"""Pixels of one half of a picture."""

AROUND = 2.5
"""How much of the image is shown: so many times the longer side of the box in question, or a third of the image."""


@dataclass(frozen=True)
class Mistake:
    """A wrong detection or an object that was missed.

    Attributes:
        image: position of the image in the report.
        detection: row of the detection table, or -1 for none.
        object: row of the object table, or -1 for none.
        caption: what is wrong.
    """

    image: int
    detection: int
    object: int
    caption: str


def wrong_detections(report: QualityReport) -> list[Mistake]:
    """Return the wrong detections above the score threshold, those of the highest score first."""
    errors, detections, names = report.errors, report.detections, [quality.name for quality in report.classes]
    score = detections.score[errors.rows]
    wrong = np.flatnonzero((errors.kind >= 0) & (score > report.score_threshold))
    mistakes = []
    for row in wrong[np.argsort(-score[wrong], kind="stable")].tolist():
        detection, about = int(errors.rows[row]), int(errors.object_row[row])
        found = f"{names[detections.label[detection]]} {detections.score[detection]:.2f}"
        real = names[report.objects.label[about]] if about >= 0 else ""
        reason = {
            "classification": f"is a {real}",
            "localisation": f"on a {real}, but with IoU {_iou(report, detection, about):.2f}",
            "both": f"near a {real}, with IoU {_iou(report, detection, about):.2f}",
            "duplicate": f"on a {real} that a better detection has found",
            "background": "where nothing is annotated",
        }[ERROR_KINDS[errors.kind[row]]]
        mistakes.append(Mistake(int(detections.image[detection]), detection, about, f"{found} {reason}"))
    return mistakes


def _iou(report: QualityReport, detection: int, about: int) -> float:
    """Return the IoU of a detection and an object, 0 without one."""
    if about < 0:
        return 0.0
    rows = slice(about, about + 1)
    boxes = report.detections.xywh[detection : detection + 1], report.objects.xywh[rows], report.objects.iscrowd[rows]
    return float(box_iou(*boxes)[0])


def missed_objects(report: QualityReport) -> list[Mistake]:
    """Return the objects without a right detection above the score threshold, those of the lowest score first.

    An object's score is that of the right detection at IoU 0.5; of objects without any, the largest come first.
    """
    errors, objects, names = report.errors, report.objects, [quality.name for quality in report.classes]
    score, finder = np.full(len(objects), -1.0), np.full(len(objects), -1)
    right = np.flatnonzero(errors.kind == -1)
    score[errors.object_row[right]] = report.detections.score[errors.rows[right]]
    finder[errors.object_row[right]] = errors.rows[right]
    missed = np.flatnonzero((score <= report.score_threshold) & ~objects.iscrowd)
    order = missed[np.lexsort((-objects.area[missed], score[missed]))]
    mistakes = []
    for row in order.tolist():
        reason = f"found with a score of {score[row]:.2f} only" if finder[row] >= 0 else "not found at any score"
        mistakes.append(
            Mistake(int(objects.image[row]), int(finder[row]), row, f"{names[objects.label[row]]} {reason}")
        )
    return mistakes


def mistake_pictures(
    report: QualityReport,
    mistakes: Sequence[Mistake],
    load_image: LoadImage,
    image_name: ImageName,
    most: int,
) -> list[Picture]:
    """Return pictures of the first mistakes, at most two of each image; images that cannot be read are left out."""
    pictures: list[Picture] = []
    for mistake in _spread(mistakes):
        if len(pictures) == most:
            break
        try:
            image = load_image(mistake.image)
        except (DetlitError, OSError):
            continue
        caption = f"{mistake.caption} · {image_name(mistake.image)}"
        pictures.append(Picture(_picture(report, mistake, image), caption))
    return pictures


def _spread(mistakes: Sequence[Mistake], most: int = 2) -> Iterator[Mistake]:
    """Yield the mistakes, of each image only the first ones."""
    seen: dict[int, int] = {}
    for mistake in mistakes:
        seen[mistake.image] = seen.get(mistake.image, 0) + 1
        if seen[mistake.image] <= most:
            yield mistake


def _picture(report: QualityReport, mistake: Mistake, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the surroundings of a mistake twice: with the objects, and with the detections above the threshold."""
    objects, detections = report.objects, report.detections
    names = [quality.name for quality in report.classes]
    focus = detections.xywh[mistake.detection] if mistake.object < 0 else objects.xywh[mistake.object]
    left, top, right, bottom = _window(focus, *image.shape[:2])
    scale = SIDE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    crop = cv2.resize(np.ascontiguousarray(image[top:bottom, left:right]), size, interpolation=method).astype(np.uint8)
    halves = []
    for table, marked in ((objects, mistake.object), (detections, mistake.detection)):
        rows = np.flatnonzero(table.image == mistake.image)
        if table is detections:
            rows = rows[(detections.score[rows] > report.score_threshold) | (rows == marked)]
        boxes = table.xywh[rows] - [left, top, 0, 0]
        boxes[:, 2:] += boxes[:, :2]
        inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < [right - left, bottom - top]).all(axis=1)
        rows, boxes = rows[inside], boxes[inside]
        captions = [names[label] for label in table.label[rows[rows == marked]].tolist()]
        if table is detections:
            captions = [f"{name} {detections.score[marked]:.2f}" for name in captions]
        halves.append(mark_boxes(crop, boxes * scale, np.flatnonzero(rows == marked).tolist(), captions, SIDE))
    gap = np.full((halves[0].shape[0], 6, 3), 128, dtype=np.uint8)
    return np.hstack([halves[0], gap, halves[1]])


def _window(box: NDArray[np.float64], height: int, width: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the square around an ``xywh`` box that is shown, moved into the image."""
    side = max(AROUND * float(box[2:].max()), max(height, width) / 3, 32.0)
    edges = []
    for centre, length in ((box[0] + box[2] / 2, width), (box[1] + box[3] / 2, height)):
        start = min(max(float(centre) - side / 2, 0.0), max(length - side, 0.0))
        edges.append((int(start), int(min(start + side, length))))
    (left, right), (top, bottom) = edges
    return left, top, max(right, left + 1), max(bottom, top + 1)
