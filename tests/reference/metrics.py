"""Matching and quality the slow and obvious way: one detection, one object, one threshold at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Box = tuple[float, float, float, float]


@dataclass(eq=False)
class Thing:
    """An object; ``box`` is left, top, width, height."""

    image: int
    label: int
    box: Box
    crowd: bool = False
    area: float = field(default=-1.0)

    def __post_init__(self) -> None:
        if self.area == -1.0:
            self.area = self.box[2] * self.box[3]


@dataclass(eq=False)
class Found:
    """A detection; ``row`` tells where it stood among all."""

    image: int
    label: int
    score: float
    box: Box
    row: int = 0


@dataclass
class Verdict:
    """What became of a detection."""

    found: Found
    thing: Thing | None
    ignored: bool


def iou(found: Found, thing: Thing) -> float:
    (x, y, w, h), (u, v, s, t) = found.box, thing.box
    width, height = min(w + x, s + u) - max(x, u), min(h + y, t + v) - max(y, v)
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return overlap / (w * h if thing.crowd else w * h + s * t - overlap)


def judge(
    founds: Sequence[Found],
    things: Sequence[Thing],
    threshold: float = 0.5,
    area: tuple[float, float] = (0, 1e10),
    limit: int = 100,
) -> list[Verdict]:
    """Return a verdict on each detection that counts, best first; of equal scores the earlier image first."""
    verdicts: list[Verdict] = []
    for image in sorted({found.image for found in founds}):
        for label in sorted({found.label for found in founds}):
            mine = [found for found in founds if (found.image, found.label) == (image, label)]
            mine = sorted(mine, key=lambda found: -found.score)[:limit]
            theirs = [thing for thing in things if (thing.image, thing.label) == (image, label)]
            free = list(theirs)
            for found in mine:
                best = _choose([thing for thing in free if iou(found, thing) >= threshold], found, area)
                if best is not None and not best.crowd:
                    free.remove(best)
                outside = not area[0] <= found.box[2] * found.box[3] <= area[1]
                verdicts.append(Verdict(found, best, outside if best is None else ignored(best, area)))
    return sorted(verdicts, key=lambda verdict: -verdict.found.score)


def _choose(candidates: list[Thing], found: Found, area: tuple[float, float]) -> Thing | None:
    """Return the object of the greatest IoU, the last of equals, preferring those that are not ignored."""
    wanted = [thing for thing in candidates if not ignored(thing, area)] or candidates
    return max(enumerate(wanted), key=lambda pair: (iou(found, pair[1]), pair[0]))[1] if wanted else None


def ignored(thing: Thing, area: tuple[float, float] = (0, 1e10)) -> bool:
    return thing.crowd or not area[0] <= thing.area <= area[1]


def counted(verdicts: Sequence[Verdict], threshold: float = -1.0) -> list[Verdict]:
    return [verdict for verdict in verdicts if not verdict.ignored and verdict.found.score > threshold]


def average_precision(outcomes: Sequence[bool], num_objects: int) -> float:
    """Return the mean over recall 0, 0.01, ..., 1 of the greatest precision at that recall or more."""
    points = []
    for last in range(1, len(outcomes) + 1):
        hits = sum(outcomes[:last])
        points.append((hits / num_objects, hits / last))
    levels = np.linspace(0, 1, 101).tolist()
    return sum(max((p for r, p in points if r >= level), default=0.0) for level in levels) / 101


def mean_ap_50(outcomes: Sequence[tuple[int, bool]], things: Sequence[Thing], gone: Sequence[Thing] = ()) -> float:
    """Return the mean over the classes with objects, of (label, right) best first; a class all gone is perfect."""
    values = []
    for label in sorted({thing.label for thing in things if not ignored(thing)}):
        left = sum(thing.label == label and not ignored(thing) and thing not in gone for thing in things)
        mine = [right for other, right in outcomes if other == label]
        values.append(average_precision(mine, left) if left else 1.0)
    return sum(values) / len(values) if values else -1.0


def confusion(
    verdicts: Sequence[Verdict], things: Sequence[Thing], num_classes: int, threshold: float
) -> list[list[int]]:
    matrix = [[0] * (num_classes + 1) for _ in range(num_classes + 1)]
    kept = counted(verdicts, threshold)
    free = [thing for thing in things if not ignored(thing)]
    for verdict in kept:
        if verdict.thing is not None:
            matrix[verdict.thing.label][verdict.found.label] += 1
            free.remove(verdict.thing)
    for verdict in sorted(kept, key=lambda verdict: (-verdict.found.score, verdict.found.row)):
        if verdict.thing is None:
            near = [thing for thing in free if thing.image == verdict.found.image and iou(verdict.found, thing) >= 0.5]
            best = _choose(near, verdict.found, (float("-inf"), float("inf")))
            matrix[num_classes if best is None else best.label][verdict.found.label] += 1
            if best is not None:
                free.remove(best)
    for thing in free:
        matrix[thing.label][num_classes] += 1
    return matrix


def kinds(verdicts: Sequence[Verdict], things: Sequence[Thing]) -> list[tuple[str, Thing | None]]:
    """Return what each detection that counts is: ``right``, or the kind of its error, and the object it is about."""
    result: list[tuple[str, Thing | None]] = []
    for verdict in counted(verdicts):
        if verdict.thing is not None:
            result.append(("right", verdict.thing))
            continue
        found = verdict.found
        here = [thing for thing in things if thing.image == found.image and not ignored(thing)]
        same = max(
            ((iou(found, thing), i) for i, thing in enumerate(here) if thing.label == found.label), default=(0, 0)
        )
        other = max(
            ((iou(found, thing), i) for i, thing in enumerate(here) if thing.label != found.label), default=(0, 0)
        )
        if 0.1 <= same[0] < 0.5:
            result.append(("localisation", here[same[1]]))
        elif other[0] >= 0.5:
            result.append(("classification", here[other[1]]))
        elif same[0] >= 0.5:
            result.append(("duplicate", here[same[1]]))
        elif other[0] >= 0.1:
            result.append(("both", here[other[1]]))
        else:
            result.append(("background", None))
    return result


def gains(verdicts: Sequence[Verdict], things: Sequence[Thing]) -> dict[str, float]:
    """Return average precision at IoU 0.5 with each kind of error corrected, less that without."""
    kept, judged = counted(verdicts), kinds(verdicts, things)
    pairs = list(zip([verdict.found for verdict in kept], judged, strict=True))
    real = [thing for thing in things if not ignored(thing)]
    hit = {thing for kind, thing in judged if kind == "right"}
    nearly = {thing for kind, thing in judged if kind in ("classification", "localisation")}
    plain = [(found.label, kind == "right") for found, (kind, _) in pairs]
    after = {
        "missed": mean_ap_50(plain, real, [thing for thing in real if thing not in hit | nearly]),
        "false_negatives": mean_ap_50(plain, real, [thing for thing in real if thing not in hit]),
        "false_positives": mean_ap_50([outcome for outcome in plain if outcome[1]], real),
    }
    for name in ("classification", "localisation", "both", "duplicate", "background"):
        outcomes, used = [], set(hit)
        for (kind, thing), outcome in zip(judged, plain, strict=True):
            if kind != name:
                outcomes.append(outcome)
            elif name in ("classification", "localisation") and thing is not None and thing not in used:
                used.add(thing)
                outcomes.append((thing.label, True))
        after[name] = mean_ap_50(outcomes, real)
    base = mean_ap_50(plain, real)
    return {name: value - base for name, value in after.items()}
