"""Image files, read once: what they are, whether they can be decoded, and fingerprints to compare them by."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.check.records import Records
from detlit.data.image_header import displayed_size

__all__ = ["Scan", "Track", "scan_images"]

Track = Callable[[Iterable["Scan"], int], Iterable["Scan"]]
"""Passes on what it is given, of which it is told the number, and shows how far it is."""

THUMBNAIL = 32
"""Side of the grey pictures that are compared, in pixels."""


@dataclass(frozen=True)
class Scan:
    """What an image file turned out to be.

    Attributes:
        fault: "missing", "unreadable", or "" where all is well.
        reason: why it is unreadable, and with what the size disagrees.
        size: (height, width) as displayed; (0, 0) where it is unknown.
        fits: whether the size is the annotated one, before or after the rotation that EXIF asks for.
        digest: of the file's content.
        thumbnail: ``(32, 32)`` uint8 grey.
    """

    fault: str = ""
    reason: str = ""
    size: tuple[int, int] = (0, 0)
    fits: bool = True
    digest: bytes = b""
    thumbnail: NDArray[np.uint8] | None = None


def scan_images(records: Records, track: Track | None = None) -> list[Scan]:
    """Return a scan of each image, read and decoded on all cores.

    Args:
        records: the table.
        track: shows progress.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        scans = pool.map(lambda image: _scan(records, image), range(records.num_images))
        return list(scans if track is None else track(scans, records.num_images))


def _scan(records: Records, image: int) -> Scan:
    height, width = records.sizes[image].tolist()
    if records.paths[image]:
        return scan_file(records.paths[image], (height, width))
    split = int(records.image_split[image])
    load = records.splits[split].load_image
    if load is None:
        return Scan()
    try:
        pixels = load(image - int(records.first_image[split]))
    except Exception as error:  # whatever a foreign data set raises is what the user wants to read
        return Scan("unreadable", " ".join(str(error).split()) or type(error).__name__)
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    size = (pixels.shape[0], pixels.shape[1])
    fits = not height or size == (height, width)
    return Scan(size=size, fits=fits, digest=_digest(pixels.tobytes()), thumbnail=_thumbnail(grey.astype(np.uint8)))


def scan_file(path: str, annotated: tuple[int, int]) -> Scan:
    """Return the scan of a file.

    Args:
        path: the file.
        annotated: (height, width) that its annotations say, 0 where they do not.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow for 100,000 files
            data = file.read()
    except FileNotFoundError:
        return Scan("missing")
    except OSError as error:
        return Scan("unreadable", error.strerror or str(error))
    if _is_cut_off(data):
        return Scan("unreadable", f"the file ends early ({len(data)} bytes)")
    header = displayed_size(io.BytesIO(data))
    grey = _decode(data, _reduced_flag(header))
    if grey is None:
        return Scan("unreadable", f"it cannot be decoded ({len(data)} bytes)")
    size = header or (grey.shape[0], grey.shape[1])
    fits = not all(annotated) or size == annotated or (size == annotated[::-1] and _is_turned(data, annotated))
    return Scan(size=size, fits=fits, digest=_digest(data), thumbnail=_thumbnail(grey))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _is_cut_off(data: bytes) -> bool:
    """Tell whether a JPEG or PNG lacks its end, which OpenCV fills with grey without a word.

    A JPEG's end marker follows its last scan; thumbnails inside have theirs before it.
    """
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    return data.startswith(b"\x89PNG") and b"IEND" not in data[-1024:]


def _reduced_flag(size: tuple[int, int] | None) -> int:
    """Return how to decode a grey image of at least 64 pixels a side fast; JPEG skips most of its work."""
    side = min(size) if size else 0
    for factor, flag in (
        (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
        (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
        (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    ):
        if side >= 2 * THUMBNAIL * factor:
            return flag
    return cv2.IMREAD_GRAYSCALE


def _decode(data: bytes, flag: int) -> NDArray[np.uint8] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag) if data else None  # type: ignore[return-value]
    except cv2.error:
        return None


def _is_turned(data: bytes, annotated: tuple[int, int]) -> bool:
    """Tell whether an image has its annotated size without the rotation that EXIF asks for."""
    stored = _decode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    return stored is not None and stored.shape[:2] == annotated
