"""What was found of a kind of fault."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.data.check.kinds import KINDS, Kind, Severity
from detlit.data.check.records import Records

__all__ = ["Finding", "of_images", "of_objects"]


@dataclass(frozen=True)
class Finding:
    """All faults of one kind.

    Attributes:
        code: the kind, a key of :data:`~detlit.data.check.kinds.KINDS`.
        places: where, the worst first.
        rows: ``(n,)`` the objects concerned in the order of ``places``; empty where it is not about objects.
        images: ``(n,)`` the images concerned, or two for each place (``pairs``).
        remark: what else to know.
        pairs: ``images`` holds pairs.
    """

    code: str
    places: list[str]
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    images: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    remark: str = ""
    pairs: bool = False

    @property
    def kind(self) -> Kind:
        """Severity, words and cure."""
        return KINDS[self.code]

    @property
    def severity(self) -> Severity:
        """``"error"``, ``"warning"`` or ``"note"``."""
        return self.kind.severity

    @property
    def title(self) -> str:
        """Count and kind in words: ``2 boxes without area``."""
        count = len(self.places)
        return f"{count} {self.kind.one if count == 1 else self.kind.many}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for ``report.json``."""
        return {
            "code": self.code,
            "severity": self.severity,
            "count": len(self.places),
            "title": self.title,
            "cure": self.kind.cure,
            "remark": self.remark,
            "places": self.places,
        }


def of_objects(
    code: str,
    records: Records,
    chosen: NDArray[np.bool_],
    badness: NDArray[np.float64] | None = None,
    remark: str = "",
) -> list[Finding]:
    """Return a finding about the chosen objects, the worst first, or nothing if there are none.

    Args:
        code: the kind.
        records: the table.
        chosen: ``(M,)`` which objects.
        badness: ``(M,)`` how bad each is.
        remark: what else to know.
    """
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return []
    if badness is not None:
        rows = rows[np.argsort(-badness[rows], kind="stable")]
    places = [records.object_name(row) for row in rows.tolist()]
    return [Finding(code, places, rows=rows, images=records.image[rows], remark=remark)]


def of_images(code: str, records: Records, images: dict[int, str]) -> list[Finding]:
    """Return a finding about images, given with what is wrong with each, or nothing if there are none."""
    if not images:
        return []
    places = [records.image_name(image) + (f": {text}" if text else "") for image, text in images.items()]
    return [Finding(code, places, images=np.array(list(images), dtype=np.int64))]
