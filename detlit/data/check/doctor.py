"""All checks of a data set, in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detlit.data.check.boxes import check_boxes
from detlit.data.check.classes import check_classes
from detlit.data.check.finding import Finding
from detlit.data.check.images import check_images, check_presence
from detlit.data.check.kinds import KINDS, Severity
from detlit.data.check.records import Problem, Records, Split
from detlit.data.check.scan import Scan, Track, scan_images
from detlit.data.check.statistics import Statistics, measure
from detlit.structures import Preprocessing

__all__ = ["Checkup", "check_data"]


@dataclass(frozen=True)
class Checkup:
    """What a check found.

    Attributes:
        records: the data.
        findings: the faults, errors first, then warnings, then notes.
        statistics: what the data hold.
        preprocessing: the network input that sizes refer to.
        images_read: whether the images were decoded.
    """

    records: Records
    findings: tuple[Finding, ...]
    statistics: Statistics
    preprocessing: Preprocessing
    images_read: bool

    def of(self, severity: Severity) -> list[Finding]:
        """Return the findings of a severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for ``report.json``."""
        height, width = self.preprocessing.size
        return {
            "images_read": self.images_read,
            "input_size": {"height": height, "width": width},
            "class_names": list(self.records.class_names),
            **self.statistics.to_dict(self.records),
            "findings": [finding.to_dict() for finding in self.findings],
        }


def check_data(
    splits: Sequence[Split],
    class_names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    read_images: bool = True,
    problems: Sequence[Problem] = (),
    track: Track | None = None,
) -> Checkup:
    """Check a data set.

    Args:
        splits: what the annotations say.
        class_names: the classes of the run; ``None`` takes those of the first split.
        preprocessing: how images become network input; ``None`` is 640x640.
        read_images: decode the images: finds unreadable and repeated ones, and wrong sizes.
        problems: faults found while the splits were looked for.
        track: shows the progress of reading images: returns the scans it is given, of which it is told the number.
    """
    records = Records(splits, class_names)
    preprocessing = Preprocessing() if preprocessing is None else preprocessing
    scans = scan_images(records, track) if read_images else []
    _fill_in_sizes(records, scans)
    findings = [
        *_of_problems([*problems, *(problem for split in splits for problem in split.problems)], splits),
        *check_classes(records),
        *check_boxes(records, preprocessing),
        *(check_images(records, scans) if read_images else check_presence(records)),
        *_unannotated(records),
    ]
    order: list[Severity] = ["error", "warning", "note"]
    return Checkup(
        records=records,
        findings=tuple(sorted(_merged(findings), key=lambda finding: order.index(finding.severity))),
        statistics=measure(records, preprocessing),
        preprocessing=preprocessing,
        images_read=read_images,
    )


def _fill_in_sizes(records: Records, scans: Sequence[Scan]) -> None:
    """Take the size of an image from its file where no annotation says it."""
    for image in np.flatnonzero((records.sizes <= 0).any(axis=1)).tolist():
        if scans and not scans[image].fault:
            records.sizes[image] = scans[image].size


def _of_problems(problems: Sequence[Problem], splits: Sequence[Split]) -> list[Finding]:
    """Return what could not be read, by kind."""
    split_of = {id(problem): split.name for split in splits for problem in split.problems}
    findings = []
    for code in KINDS:
        places = []
        for problem in problems:
            if problem.code == code:
                where = "/".join(part for part in (split_of.get(id(problem), ""), problem.image) if part)
                place = f"{problem.place} ({where})" if where else problem.place
                places.append(place + (f": {problem.text}" if problem.text else ""))
        findings += [Finding(code, places)] if places else []
    return findings


def _unannotated(records: Records) -> list[Finding]:
    """Return image files that no split mentions; splits may share a folder."""
    listed = set(records.paths)
    places = dict.fromkeys(path for split in records.splits for path in split.unlisted if path not in listed)
    return [Finding("unannotated-file", list(places))] if places else []


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Return one finding of each kind."""
    merged: list[Finding] = []
    for code in dict.fromkeys(finding.code for finding in findings):
        same = [finding for finding in findings if finding.code == code]
        remarks = dict.fromkeys(finding.remark for finding in same if finding.remark)
        merged.append(
            Finding(
                code,
                [place for finding in same for place in finding.places],
                rows=np.concatenate([finding.rows for finding in same]),
                images=np.concatenate([finding.images for finding in same]),
                remark="; ".join(remarks),
                pairs=same[0].pairs,
            )
        )
    return merged
