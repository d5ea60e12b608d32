"""Faults of class lists."""

import difflib

import numpy as np

from detlit.data.check.finding import Finding
from detlit.data.check.records import Records

__all__ = ["check_classes"]


def check_classes(records: Records) -> list[Finding]:
    """Return what is wrong with the class lists of the splits."""
    return [*_foreign(records), *_order(records), *_similar(records), *_unused(records)]


def _foreign(records: Records) -> list[Finding]:
    """Return classes that a split declares but the run does not know."""
    known = records.class_names[: records.num_declared]
    places = []
    for split in records.splits:
        for name in split.class_names:
            if name not in known:
                near = difflib.get_close_matches(name.casefold(), [other.casefold() for other in known], 1, 0.7)
                meant = [repr(other) for other in known if other.casefold() in near]
                places.append(f"{name!r} in {split.name}" + (f" (is it {meant[0]}?)" if meant else ""))
    return [Finding("class-of-one-split", places)] if places else []


def _order(records: Records) -> list[Finding]:
    """Return splits whose ids mean other classes than those of the first split."""
    first, *others = records.splits
    names = dict(zip(first.class_ids, first.class_names, strict=False))  # no ids in VOC
    places = []
    for split in others:
        own = dict(zip(split.class_ids, split.class_names, strict=False))
        differing = [key for key in own if own[key] != names.get(key) and own[key] in names.values()]
        if differing:
            key = differing[0]
            other = repr(names[key]) if key in names else "nothing"
            places.append(f"{split.name}: {key} is {own[key]!r}, in {first.name} {other}")
    return [Finding("class-order", places)] if places else []


def _similar(records: Records) -> list[Finding]:
    """Return pairs of names of the run that differ in case and spaces only."""
    groups: dict[str, list[str]] = {}
    for name in records.class_names[: records.num_declared]:
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    places = [f"{group[0]!r} and {name!r}" for group in groups.values() for name in group[1:]]
    return [Finding("similar-classes", places)] if places else []


def _unused(records: Records) -> list[Finding]:
    """Return classes of the run without objects, in all splits or in training."""
    counts = np.bincount(records.labels, minlength=len(records.class_names))
    names = records.class_names[: records.num_declared]
    unused = [name for name, count in zip(names, counts, strict=False) if not count]
    findings = [Finding("unused-class", unused)] if unused else []
    splits = [split.name for split in records.splits]
    if "train" in splits:
        rows = records.split == splits.index("train")
        trained = np.bincount(records.labels[rows], minlength=len(records.class_names))
        untrained = [
            f"{name} ({count} in other splits)"
            for name, count, own in zip(names, counts, trained, strict=False)
            if count and not own
        ]
        findings += [Finding("untrained-class", untrained)] if untrained else []
    return findings
