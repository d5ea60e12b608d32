"""A cleaned copy of a split in COCO's format."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.data.check.doctor import Checkup
from detlit.data.check.records import Records, Split

__all__ = ["Fixed", "fix"]

REMOVED = ("nan-box", "negative-box", "zero-area-box", "outside-box", "repeated-box")
"""Faults whose objects are left out."""

CUT = ("overhanging-box", "oversized-box")
"""Faults whose boxes are cut off at the edges of their images."""

LOST_IMAGES = ("missing-image", "unreadable-image")
"""Faults whose images are left out, with their objects."""

UNREAD = (
    "malformed-record",
    "repeated-image",
    "unlisted-image",
    "undeclared-class",
)
"""Faults of entries that were never read, and are therefore not in a copy."""


@dataclass(frozen=True)
class Fixed:
    """A cleaned copy.

    Attributes:
        content: in COCO's format.
        changes: what differs from the source, a line each.
        left: faults that are still there, a line each.
    """

    content: dict[str, Any]
    changes: tuple[str, ...]
    left: tuple[str, ...]

    def write(self, path: str | Path) -> None:
        """Write the file."""
        Path(path).write_text(json.dumps(self.content), encoding="utf-8")


def fix(checkup: Checkup, split: int) -> Fixed:
    """Return a copy of a split without the entries that are certainly wrong; nothing is guessed.

    Boxes in another format, repeated images, images of another size and doubtful classes stay as they are: only their
    owner knows what is right.

    Args:
        checkup: what was found.
        split: position of the split.
    """
    records = checkup.records
    own = records.splits[split]
    images, objects = slice(*records.first_image[split : split + 2]), slice(*records.first_object[split : split + 2])
    keep_image, keep = np.ones(records.num_images, np.bool_), np.ones(len(records.labels), np.bool_)
    cut = np.zeros_like(keep)
    changes, left = [], []
    for finding in checkup.findings:
        rows, lost = finding.rows[records.split[finding.rows] == split], finding.images
        lost = lost[records.image_split[lost] == split]
        if finding.code in REMOVED and len(rows):
            keep[rows] = False
            changes.append(f"left out: {_count(len(rows), finding.kind.one, finding.kind.many)}")
        elif finding.code in CUT and len(rows):
            cut[rows] = True
            changes.append(f"cut off at the edges: {_count(len(rows), finding.kind.one, finding.kind.many)}")
        elif finding.code in LOST_IMAGES and len(lost):
            keep_image[lost] = False
            changes.append(f"left out: {_count(len(lost), finding.kind.one, finding.kind.many)}")
        elif finding.code in UNREAD:
            count = sum(problem.code == finding.code for problem in own.problems)
            if count:
                changes.append(f"left out: {_count(count, finding.kind.one, finding.kind.many)}")
        elif finding.severity != "note" and (len(rows) or len(lost) or not len(finding.images)):
            left.append(finding.title)
    of_lost = keep & ~keep_image[records.image]
    if of_lost[objects].any():
        changes.append(f"left out: {_count(int(of_lost[objects].sum()), 'object', 'objects')} of these images")
    image_rows = own.image_rows or _new_image_rows(own.images, records.sizes[images])
    content = _content(records, own, image_rows, keep_image[images], (keep & ~of_lost)[objects], cut[objects], objects)
    return Fixed(content, tuple(changes), tuple(left))


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _content(
    records: Records,
    split: Split,
    image_rows: Sequence[dict[str, Any]],
    keep_image: NDArray[np.bool_],
    keep: NDArray[np.bool_],
    cut: NDArray[np.bool_],
    objects: slice,
) -> dict[str, Any]:
    """Return images, annotations and categories; entries of a COCO source keep all that they said."""
    annotations = []
    for number in np.flatnonzero(keep).tolist():
        row = dict(split.rows[number]) if split.rows else _new_row(split, number, image_rows)
        if cut[number] or not split.rows:
            image = int(split.image[number])
            height, width = records.sizes[records.image[objects.start + number]].tolist()
            row["bbox"] = _box(split.boxes[number], height, width, bool(cut[number]))
            row["area"] = row["bbox"][2] * row["bbox"][3]
            row["image_id"] = image_rows[image]["id"]
        annotations.append(row)
    return {
        "images": [dict(row) for row, kept in zip(image_rows, keep_image.tolist(), strict=True) if kept],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in zip(_ids(split), split.class_names, strict=True)],
    }


def _ids(split: Split) -> Sequence[int]:
    """Return the category ids: those of a COCO source whose classes were not chosen, otherwise 1, 2, 3, ..."""
    known = split.format == "coco" and split.class_ids
    return split.class_ids if known else range(1, len(split.class_names) + 1)


def _new_image_rows(names: Sequence[str], sizes: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return entries of images, with height and width where they are known."""
    return [
        {"id": number, "file_name": name, **({"height": height, "width": width} if height and width else {})}
        for number, (name, (height, width)) in enumerate(zip(names, sizes.tolist(), strict=True), 1)
    ]


def _new_row(split: Split, number: int, images: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": number + 1,
        "image_id": images[int(split.image[number])]["id"],
        "category_id": _ids(split)[int(split.labels[number])],
        "iscrowd": int(split.iscrowd[number]),
    }


def _box(box: NDArray[np.float64], height: int, width: int, cut: bool) -> list[float]:
    """Return x, y, width and height, cut off at the edges of the image if asked to."""
    left, top, right, bottom = box.tolist()
    if cut:
        left, right = max(left, 0.0), min(right, float(width))
        top, bottom = max(top, 0.0), min(bottom, float(height))
    return [left, top, right - left, bottom - top]
