"""Detections in COCO's results format: a json list of image_id, category_id, bbox and score."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.errors import AnnotationError, abridged
from detlit.metrics.tables import DetectionTable, stable_order

__all__ = ["read_results", "write_results"]


def write_results(
    path: str | Path, detections: DetectionTable, image_ids: NDArray[np.int64], category_ids: Sequence[int]
) -> None:
    """Write detections, every digit of them, so that they score the same when they are read back.

    Args:
        path: the json file; its folder is made if it is not there.
        detections: of all images.
        image_ids: ``(I,)`` id of each image.
        category_ids: id of each label.
    """
    rows = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for image_id, label, box, score in zip(
            image_ids[detections.image].tolist(),
            detections.label.tolist(),
            detections.xywh.tolist(),
            detections.score.tolist(),
            strict=True,
        )
    ]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[" + ",\n".join(map(json.dumps, rows)) + "]\n", encoding="utf-8")


def read_results(
    path: str | Path,
    images: Mapping[int, int],
    labels: Mapping[int, int],
    image_names: Mapping[str, int] | None = None,
    label_names: Mapping[str, int] | None = None,
) -> tuple[DetectionTable, int]:
    """Read detections.

    Entries that also hold ``file_name`` and ``category_name``, as ``detlit predict`` writes them, are understood by
    these, because their ids are made up.

    Scores outside [0, 1], such as percents or logits, are legal in the format and read as they are: average precision
    follows from their order alone. A warning tells that what depends on their values does not mean much then.

    Args:
        path: the json file.
        images: position of each image id.
        labels: label of each category id.
        image_names: position of each image file name, without folders.
        label_names: label of each category name.

    Returns:
        The detections, and how many were left out, because the ground truth does not know their category.

    Raises:
        AnnotationError: it is missing or no results file, a box has a negative side, a number is not finite, an image
            is unknown, or every category is.
    """
    rows = _load(Path(path))
    named = bool(image_names and label_names) and all("file_name" in row and "category_name" in row for row in rows)
    image_key, label_key = ("file_name", "category_name") if named else ("image_id", "category_id")
    positions: Mapping[Any, int] = (image_names or {}) if named else images
    classes: Mapping[Any, int] = (label_names or {}) if named else labels
    for number, row in enumerate(rows):
        _check(row, number, path, image_key, label_key)
        if row[image_key] not in positions:
            raise AnnotationError(
                f"{path}: detection {number} is in an image with {image_key} {row[image_key]!r}, which the ground "
                "truth does not list: give the annotation file of the same images."
            )
    known = [row for row in rows if row[label_key] in classes]
    if rows and not known:
        raise AnnotationError(
            f"{path}: no {label_key} is known to the ground truth, the first is {rows[0][label_key]!r} and it has "
            f"{abridged(map(repr, classes))}: map the categories before writing results."
        )
    image = np.array([positions[row[image_key]] for row in known], dtype=np.int64)
    order = stable_order(image)
    label = np.array([classes[row[label_key]] for row in known], dtype=np.int64)
    score = np.array([row["score"] for row in known], dtype=np.float64)
    xywh = np.array([row["bbox"] for row in known], dtype=np.float64).reshape(-1, 4)
    if len(score) and not 0 <= score.min() <= score.max() <= 1:
        warnings.warn(
            f"{path} has scores from {score.min():g} to {score.max():g}: average precision and recall depend on their "
            "order alone, but score thresholds, curves and calibration are made for scores from 0 to 1.",
            stacklevel=2,
        )
    return DetectionTable(image[order], label[order], score[order], xywh[order]), len(rows) - len(known)


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AnnotationError(f"there is no results file {path}: correct its path.") from None
    except OSError as error:
        raise AnnotationError(
            f"results file {path} cannot be read ({error.strerror}): give a readable file."
        ) from error
    except ValueError as error:
        raise AnnotationError(f"results file {path} is not valid json ({error}): write it again.") from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise AnnotationError(
            f"results file {path} is not a list of detections: COCO's results format is "
            '[{"image_id": ..., "category_id": ..., "bbox": [x, y, width, height], "score": ...}, ...].'
        )
    return content


def _check(row: dict[str, Any], number: int, path: str | Path, image_key: str, label_key: str) -> None:
    """Refuse a detection that is incomplete, no number, or less than empty."""
    for key in (image_key, label_key, "bbox", "score"):
        if key not in row:
            raise AnnotationError(f"{path}: detection {number} has no {key!r}: add it.")
        if key in (image_key, label_key) and not isinstance(row[key], (int, str)):
            raise AnnotationError(f"{path}: detection {number} has {key} {row[key]!r}: write an id.")
    box = row["bbox"]
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) and _is_number(row["score"])):
        raise AnnotationError(
            f"{path}: detection {number} has bbox {box!r} and score {row['score']!r}: write four finite numbers, "
            "x, y, width and height, and one."
        )
    if min(box[2:]) < 0:
        raise AnnotationError(
            f"{path}: detection {number} has bbox {box!r} with a negative side: write x, y, width and height, not two "
            "corners."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
