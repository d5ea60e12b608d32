"""Which classes are taken for which."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detlit.metrics.matching import Matches, Settings, match
from detlit.metrics.tables import DetectionTable, ObjectTable, select

__all__ = ["confusion_matrix"]


def confusion_matrix(
    detections: DetectionTable, objects: ObjectTable, matches: Matches, num_classes: int, score_threshold: float
) -> NDArray[np.int64]:
    """Return ``(C + 1, C + 1)`` how many objects of a class (row) were detected as a class (column).

    The last row is the background: detections of nothing. The last column: objects that were missed. The diagonal holds
    the matches of the COCO protocol at IoU 0.5; detections it leaves over take, in the order of their scores, the
    left-over object of another class with the greatest IoU of at least 0.5. Crowds, and detections of crowds, are left
    out. So a row sums to the objects of its class, a column to the detections that count.

    Args:
        detections: of all images.
        objects: of all images.
        matches: of the two, with the lowest IoU threshold 0.5 and the first area range unlimited.
        num_classes: ``C``.
        score_threshold: detections of greater score count.
    """
    counted = (matches.ignored & np.uint64(1) == 0) & (detections.score[matches.rows] > score_threshold)
    rows, found = matches.rows[counted], matches.object_row[counted]
    right = found >= 0
    left_objects = matches.object_ignored & np.uint64(1) == 0
    left_objects[found[right]] = False
    wrong, missed = np.sort(rows[~right]), np.flatnonzero(left_objects)
    mistaken_for = _match_any_class(select(detections, wrong), select(objects, missed))

    truth = [objects.label[found[right]], np.full(len(wrong), num_classes), objects.label[missed]]
    taken = mistaken_for >= 0
    truth[1][taken] = objects.label[missed[mistaken_for[taken]]]
    unseen = np.ones(len(missed), dtype=np.bool_)
    unseen[mistaken_for[taken]] = False
    truth[2] = truth[2][unseen]
    predicted = [detections.label[rows[right]], detections.label[wrong], np.full(len(truth[2]), num_classes)]
    flat = np.concatenate(truth).astype(np.int64) * (num_classes + 1) + np.concatenate(predicted)
    return np.bincount(flat, minlength=(num_classes + 1) ** 2).reshape(num_classes + 1, num_classes + 1)


def _match_any_class(detections: DetectionTable, objects: ObjectTable) -> NDArray[np.int64]:
    """Return ``(K,)`` the row of the object that each detection takes, whatever their classes, or -1."""
    settings = Settings(iou_thresholds=(0.5,), areas=((-np.inf, np.inf),), max_detections=(max(len(detections), 1),))
    matches = match(
        replace(detections, label=np.zeros_like(detections.label)),
        replace(objects, label=np.zeros_like(objects.label)),
        settings,
    )
    object_row = np.full(len(detections), -1, dtype=np.int64)
    object_row[matches.rows] = matches.object_row
    return object_row
