"""Faults of image files, and images that are there twice."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.check.finding import Finding, of_images
from detlit.data.check.records import Records
from detlit.data.check.scan import Scan
from detlit.data.datasets.files import missing_files

__all__ = ["check_images", "check_presence", "near_duplicates"]

HASH_BITS, NEAR_BITS = 64, 10
"""Bits of the fingerprint of an image, and in how many those of near duplicates may differ."""

CORRELATION = 0.9
"""Least correlation of the thumbnails of near duplicates."""

CONTRAST = 3.0
"""Standard deviation of grey levels below which an image is too plain to be compared."""


def check_presence(records: Records) -> list[Finding]:
    """Return the images that are missing, without reading any."""
    absent = set(missing_files([path for path in records.paths if path]))
    missing = {image: "" for image, path in enumerate(records.paths) if path in absent}
    return of_images("missing-image", records, missing)


def check_images(records: Records, scans: Sequence[Scan]) -> list[Finding]:
    """Return the faults that show once the images are read."""
    numbered = list(enumerate(scans))
    sizes = {
        image: f"{scan.size[1]}x{scan.size[0]}, annotated as {records.sizes[image][1]}x{records.sizes[image][0]}"
        for image, scan in numbered
        if not scan.fits
    }
    return [
        *of_images("missing-image", records, {i: "" for i, scan in numbered if scan.fault == "missing"}),
        *of_images("unreadable-image", records, {i: s.reason for i, s in numbered if s.fault == "unreadable"}),
        *of_images("size-mismatch", records, sizes),
        *_copies(records, scans),
        *near_duplicates(records, scans),
    ]


def _copies(records: Records, scans: Sequence[Scan]) -> list[Finding]:
    """Return files of the same content, in two splits or in one."""
    first: dict[bytes, dict[int, int]] = {}
    pairs: dict[str, list[tuple[int, int]]] = {"leaked-image": [], "repeated-file": []}
    for image, scan in enumerate(scans):
        if scan.digest:
            earlier = first.setdefault(scan.digest, {})
            split = int(records.image_split[image])
            if split in earlier and records.paths[earlier[split]] == records.paths[image] != "":
                continue  # one file that is listed twice
            if split in earlier:
                pairs["repeated-file"].append((earlier[split], image))
            else:
                pairs["leaked-image"] += [(other, image) for other in list(earlier.values())[:1]]
                earlier[split] = image
    return [finding for code, found in pairs.items() for finding in _of_pairs(code, records, found, [""] * len(found))]


def _of_pairs(code: str, records: Records, pairs: Sequence[tuple[int, int]], texts: Sequence[str]) -> list[Finding]:
    if not pairs:
        return []
    names = [f"{records.image_name(a)} and {records.image_name(b)}" for a, b in pairs]
    places = [name + text for name, text in zip(names, texts, strict=True)]
    return [Finding(code, places, images=np.array(pairs, dtype=np.int64).reshape(-1), pairs=True)]


def near_duplicates(records: Records, scans: Sequence[Scan]) -> list[Finding]:
    """Return pairs of images in two splits that look the same: scaled, recompressed, or taken twice.

    Two images are near duplicates if their difference hashes (signs of the differences of neighbours in a 9x8 grey
    picture, 64 bits) differ in at most 10 bits and their grey 32x32 thumbnails correlate by at least 0.9. The hash
    alone takes plain scenes for the same; both together are strict.
    """
    usable = [
        image for image, scan in enumerate(scans) if scan.thumbnail is not None and scan.thumbnail.std() >= CONTRAST
    ]
    if not usable:
        return []
    thumbnails = [scans[image].thumbnail for image in usable]
    signs = np.stack([_difference_hash(thumbnail) for thumbnail in thumbnails if thumbnail is not None])
    images, splits = np.array(usable), records.image_split[usable]
    pairs: list[tuple[float, int, int]] = []
    for split in range(len(records.splits)):
        own, later = np.flatnonzero(splits == split), np.flatnonzero(splits > split)
        for a, b in _close(signs, own, later):
            first, second = int(images[a]), int(images[b])
            if scans[first].digest != scans[second].digest:
                correlation = _correlation(scans[first], scans[second])
                pairs += [(correlation, first, second)] if correlation >= CORRELATION else []
    pairs.sort(key=lambda pair: -pair[0])
    texts = [f" (correlation {correlation:.2f})" for correlation, _, _ in pairs]
    return _of_pairs("near-duplicate", records, [(first, second) for _, first, second in pairs], texts)


def _close(signs: NDArray[np.float32], own: NDArray[np.int64], later: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return pairs of positions from both lists whose hashes differ in few bits: ``64 - 2 * bits`` is their product."""
    found: list[tuple[int, int]] = []
    for start in range(0, len(own), 2048):
        chunk = own[start : start + 2048]
        for begin in range(0, len(later), 8192):
            other = later[begin : begin + 8192]
            a, b = np.nonzero(signs[chunk] @ signs[other].T >= HASH_BITS - 2 * NEAR_BITS)
            found += zip(chunk[a].tolist(), other[b].tolist(), strict=True)
    return found


def _difference_hash(thumbnail: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return ``(64,)`` 1 where a pixel of a 9x8 picture is brighter than its left neighbour, otherwise -1."""
    small = cv2.resize(thumbnail, (9, 8), interpolation=cv2.INTER_AREA)
    signs: NDArray[np.float32] = np.where(small[:, 1:] > small[:, :-1], 1, -1).astype(np.float32).reshape(-1)
    return signs


def _correlation(first: Scan, second: Scan) -> float:
    if first.thumbnail is None or second.thumbnail is None:
        return 0.0
    return float(np.corrcoef(first.thumbnail.reshape(-1), second.thumbnail.reshape(-1))[0, 1])
