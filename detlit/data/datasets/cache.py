"""Parsed annotations kept on disk, so that thousands of small files are parsed once."""

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit import __version__

__all__ = ["Arrays", "cached_arrays", "fingerprint"]

Arrays = dict[str, NDArray[Any]]

_SETTLED_SECONDS = 2.0  # a file may change twice within the resolution of its time stamp, 2 s on FAT


def cached_arrays(folder: Path, name: str, key: str | None, read: Callable[[], Arrays]) -> Arrays:
    """Return what ``read`` returns, from ``folder/.detlit`` if it was stored there under the same key.

    A cache that is damaged is not used, an older one of the same name is removed, and processes that write at once do
    not disturb each other. Where the folder is read-only, the user's cache folder (``XDG_CACHE_HOME``) is used.

    Args:
        folder: of the data set.
        name: what is cached, for instance the folder of the annotations.
        key: a :func:`fingerprint` of what it was read from; ``None`` neither reads nor writes a cache.
        read: called without a cache.
    """
    if key is None:
        return read()
    label = hashlib.sha256(name.encode()).hexdigest()[:16]
    file_name = f"{label}-{key}.npz"
    places = [folder / ".detlit", _user_folder() / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]]
    for place in places:
        arrays = _load(place / file_name)
        if arrays is not None:
            return arrays
    arrays = read()
    for place in places:
        if _store(place, file_name, arrays):
            _remove_older(place, label, file_name)
            break
    return arrays


def fingerprint(files: Iterable[str], *others: str) -> str | None:
    """Return a hash of names, sizes and times of change of files, and of other texts.

    ``None`` if a file changed in the last moments: it might change again without another time stamp.
    """
    digest = hashlib.sha256("\0".join([__version__, *others]).encode(errors="surrogateescape"))
    newest = 0
    for path in files:
        status = os.stat(path)  # noqa: PTH116 - pathlib is slow for 100,000 files
        newest = max(newest, status.st_mtime_ns)
        digest.update(f"\0{path}\0{status.st_size}\0{status.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32] if newest / 1e9 < time.time() - _SETTLED_SECONDS else None


def _user_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "detlit")


def _load(path: Path) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _store(place: Path, file_name: str, arrays: Arrays) -> bool:
    """Write a file that is complete as soon as it is there; return whether that worked."""
    temporary = place / f"{file_name}.{os.getpid()}.tmp"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(place / file_name)
    except OSError:
        _remove(temporary)
        return False
    return True


def _remove_older(place: Path, label: str, file_name: str) -> None:
    for path in place.glob(f"{label}-*.npz"):
        if path.name != file_name:
            _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # not there, or not ours to remove
        path.unlink()
