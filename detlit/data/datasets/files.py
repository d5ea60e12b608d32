"""Lists of files: folders are listed instead of asking for files one by one, as that is slow on network drives."""

import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from detlit.errors import DatasetError, MissingDataError

__all__ = ["IMAGE_SUFFIXES", "list_files", "missing_files", "read_text", "relative_to", "stem"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".avif"})


def list_files(folder: str | Path, suffixes: Collection[str]) -> list[str]:
    """Return the paths of the files with one of the lower-case suffixes, in all folders below, sorted; no hidden ones.

    Raises:
        MissingDataError: there is no such folder.
    """
    if not os.path.isdir(folder):  # noqa: PTH112
        raise MissingDataError(f"there is no folder {folder}: check data.root and the data set's folders.")
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(parent, name)  # noqa: PTH118
            for name in names
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")  # noqa: PTH122
        ]
    return sorted(found)


def missing_files(paths: Sequence[str]) -> list[str]:
    """Return those of the paths that are not there."""
    names_in: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        parent, name = os.path.split(path)
        names_in[parent].append(name)
    missing = []
    for parent, names in names_in.items():
        present = set(os.listdir(parent or ".")) if os.path.isdir(parent or ".") else set()  # noqa: PTH112, PTH208
        missing += [f"{parent}/{name}" if parent else name for name in names if name not in present]
    return missing


def relative_to(folder: str | Path, paths: Sequence[str]) -> list[str]:
    """Return the paths from a folder on; those outside it stay as they are."""
    start = os.path.join(folder, "") if str(folder) != "." else ""  # noqa: PTH118
    return [path.removeprefix(start) for path in paths]


def stem(path: str) -> str:
    """Return a path without the last suffix of its file."""
    return os.path.splitext(path)[0]  # noqa: PTH122


def read_text(path: Path) -> str:
    """Return a text file; bytes that are no UTF-8 become question marks.

    Raises:
        MissingDataError: there is no such file.
        DatasetError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise MissingDataError(f"there is no file {path}: check data.root and the data set's arguments.") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): give a readable file.") from error
