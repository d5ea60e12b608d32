"""Collect detections and ground truth of every image, and bring together what the ranks have collected."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.errors import AnnotationError, ConfigurationError, DetlitError
from detlit.metrics.base import DetectionMetric
from detlit.metrics.gather import gather_arrays, is_distributed
from detlit.metrics.tables import DetectionTable, ObjectTable, concatenate, ranges, xywh_of
from detlit.structures import Detection, Target

__all__ = ["CollectingMetric", "Tables"]


@dataclass(frozen=True)
class Tables:
    """All that the ranks collected, each image once.

    Attributes:
        detections: of all images.
        objects: of all images.
        dataset_index: ``(I,)`` position in the data set of each image, -1 for images without one. The images are in the
            order of their ids, as in pycocotools; those of the same id, or without, in that of the data set.
        image_id: ``(I,)`` id of each image, -1 for images without one.
    """

    detections: DetectionTable
    objects: ObjectTable
    dataset_index: NDArray[np.int64]
    image_id: NDArray[np.int64]


class CollectingMetric(DetectionMetric):
    """Base of metrics that look at all images together: :meth:`update` only puts rows aside."""

    def __init__(self) -> None:
        super().__init__()
        self._clear()

    def _clear(self) -> None:
        self._images: list[NDArray[np.int64]] = []  # (B, 4) dataset index, image id, numbers of detections, objects
        self._objects: list[NDArray[np.float64]] = []  # (N, 7) label, iscrowd, area, xyxy box
        self._detections: list[NDArray[np.float32]] = []  # (K, 6) xyxy box, score, label
        self._tables: Tables | None = None

    def reset(self) -> None:
        """Forget every image."""
        super().reset()
        self._clear()

    def update(self, detections: Sequence[Detection], targets: Sequence[Target]) -> None:
        """Add images; see :meth:`DetectionMetric.update`.

        A target without ``dataset_index`` is taken for an image of its own. Its ``image_id`` decides between detections
        of equal score: those of the lower id come first, as in pycocotools. Ground truth in its ``boxes`` alone has
        the areas of the boxes.

        Raises:
            ConfigurationError: not one target for each detection, or not one score and label for each box.
            DetlitError: a detection that is NaN or infinite, or has a negative label.
            AnnotationError: the same of an object.
        """
        if len(detections) != len(targets):
            raise ConfigurationError(
                f"{len(detections)} detections for {len(targets)} targets: give the metric one of each for every image."
            )
        if not targets:
            return
        self._tables = None
        indices = [int(target.get("dataset_index", -1)) for target in targets]
        ids = [int(target.get("image_id", -1)) for target in targets]
        found, num_found = _detection_rows(detections)
        objects, num_objects = _object_rows(targets)
        if not (np.isfinite(found).all() and (found[:, 5] >= 0).all()):
            wrong = _image_of_first(~np.isfinite(found).all(1) | (found[:, 5] < 0), num_found)
            raise DetlitError(
                f"image {wrong} of a batch (dataset index {indices[wrong]}) has a detection that is NaN, infinite or "
                "of a negative label: the training has diverged, or the predictions were decoded wrongly."
            )
        if not (np.isfinite(objects).all() and (objects[:, 0] >= 0).all()):
            wrong = _image_of_first(~np.isfinite(objects).all(1) | (objects[:, 0] < 0), num_objects)
            raise AnnotationError(
                f"image {wrong} of a batch (dataset index {indices[wrong]}) has an object that is NaN, infinite or of "
                "a negative label: correct its annotations."
            )
        self._detections.append(found)
        self._objects.append(objects)
        self._images.append(np.array([indices, ids, num_found, num_objects], dtype=np.int64).T)

    def forward(self, detections: Sequence[Detection], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Add images and return the values of these alone, over all ranks."""
        alone = self.clone()
        alone.reset()
        alone.update(detections, targets)
        self.update(detections, targets)
        values: dict[str, Tensor] = alone.compute()
        return values

    def tables(self) -> Tables:
        """Return what all ranks collected; every rank must call it."""
        if self._tables is None:
            arrays = (
                concatenate(self._images, 4, np.int64),
                concatenate(self._objects, 7, np.float64),
                concatenate(self._detections, 6, np.float32),
            )
            nccl = is_distributed() and torch.distributed.get_backend() == "nccl"
            gathered = gather_arrays(arrays, self.device if nccl else torch.device("cpu"))
            images, objects, detections = (np.concatenate(column) for column in zip(*gathered, strict=True))
            self._tables = _tables(images, objects, detections)
        return self._tables


def _detection_rows(detections: Sequence[Detection]) -> tuple[NDArray[np.float32], list[int]]:
    """Return ``(K, 6)`` box, score and label of a batch, moved to the host at once, and the number of each image."""
    boxes, scores, labels = ([detection[name] for detection in detections] for name in ("boxes", "scores", "labels"))
    counts = _counts(boxes, scores, labels, "detections")
    columns = (torch.cat(boxes).reshape(-1, 4), torch.cat(scores)[:, None], torch.cat(labels)[:, None])
    return torch.cat([column.float() for column in columns], dim=1).detach().cpu().numpy(), counts


def _object_rows(targets: Sequence[Target]) -> tuple[NDArray[np.float64], list[int]]:
    """Return ``(N, 7)`` label, iscrowd, area and box of a batch in original pixels, and the number of each image."""
    original = ["orig_boxes" in target for target in targets]
    if not all(original) and any(original):
        parts = [_object_rows([target]) for target in targets]
        return np.concatenate([rows for rows, _ in parts]), [counts[0] for _, counts in parts]
    if all(original):
        boxes, labels = [target["orig_boxes"] for target in targets], [target["orig_labels"] for target in targets]
        iscrowd, areas = [target["orig_iscrowd"] for target in targets], [target["orig_area"] for target in targets]
    else:
        boxes, labels = [target["boxes"] for target in targets], [target["labels"] for target in targets]
        iscrowd = [
            target["iscrowd"] if "iscrowd" in target else torch.zeros_like(target["labels"]) for target in targets
        ]
        areas = None
    counts = _counts(boxes, labels, iscrowd, "objects")
    corners = torch.cat(boxes).reshape(-1, 4).double()
    sides = corners[:, 2:] - corners[:, :2]
    area = sides[:, 0] * sides[:, 1] if areas is None else torch.cat(areas)
    columns = [torch.cat(labels)[:, None], torch.cat(iscrowd)[:, None], area[:, None], corners]
    return torch.cat([column.double() for column in columns], dim=1).detach().cpu().numpy(), counts


def _counts(boxes: list[Tensor], first: list[Tensor], second: list[Tensor], what: str) -> list[int]:
    """Return the number of boxes of each image, after comparing it with those of two other columns."""
    counts, *others = ([values.shape[0] for values in column] for column in (boxes, first, second))
    if others != [counts, counts]:
        rows = zip(counts, *others, strict=True)
        image, numbers = next((image, numbers) for image, numbers in enumerate(rows) if len(set(numbers)) > 1)
        raise ConfigurationError(
            f"image {image} of a batch has {what} with columns of {numbers[0]}, {numbers[1]} and {numbers[2]} rows: "
            "give a box, a label and a score (or crowd flag) for each."
        )
    return counts


def _image_of_first(wrong: NDArray[np.bool_], counts: Sequence[int]) -> int:
    """Return the position in the batch of the image that the first wrong row belongs to."""
    return int(np.searchsorted(np.cumsum(counts), np.argmax(wrong), side="right"))


def _tables(images: NDArray[np.int64], objects: NDArray[np.float64], detections: NDArray[np.float32]) -> Tables:
    """Return the tables of all images in the order of their ids, without repeated ones.

    The order decides between detections of equal score: so the result does not depend on how images were spread.
    """
    order = _each_once(images[:, 0], images[:, 1])
    object_rows, object_image = _rows_of(images[:, 3], order)
    objects = objects[object_rows]
    rows, image = _rows_of(images[:, 2], order)
    detections = detections[rows]
    return Tables(
        DetectionTable(image, detections[:, 5].astype(np.int32), detections[:, 4], xywh_of(detections[:, :4])),
        ObjectTable(
            object_image,
            objects[:, 0].astype(np.int32),
            objects[:, 1] > 0,
            objects[:, 2],
            xywh_of(objects[:, 3:]),
        ),
        images[order, 0],
        images[order, 1],
    )


def _each_once(dataset_index: NDArray[np.int64], image_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the images to keep, by id, then by index; of equal indices the first, -1 is none."""
    numbered = np.flatnonzero(dataset_index >= 0)
    first = np.unique(dataset_index[numbered], return_index=True)[1]
    kept = np.concatenate([numbered[first], np.flatnonzero(dataset_index < 0)])
    return kept[np.argsort(image_id[kept], kind="stable")]


def _rows_of(counts: NDArray[np.int64], images: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the rows of these images, one image after another, and the new number of the image of each row.

    Args:
        counts: ``(I,)`` rows of each image, which follow each other.
        images: ``(J,)`` which images.
    """
    starts = np.cumsum(counts) - counts
    return ranges(starts[images], counts[images]), np.repeat(np.arange(len(images), dtype=np.int32), counts[images])
