"""Decoded images kept in memory or on the disk, so that an image is decoded once and not once per epoch."""

import errno
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from detlit.data.decoding import Decoded
from detlit.errors import CheckpointError, ConfigurationError
from detlit.spec import spec_of

__all__ = ["DiskCache", "RamCache", "estimated_bytes"]

_ARENA_BYTES = 2**26
"""Many images in few tensors: where workers do not fork, each tensor passes to them as an open file."""

_SUFFIX = ".rgb"
_HEADER_BYTES = 20


class CachedSet(Protocol):
    """What a cache must know of a data set: every :class:`~detlit.data.DetectionDataset` has it."""

    def __len__(self) -> int:
        """Return the number of images."""

    def image_path(self, index: int) -> Path | None:
        """Return the file of an image."""

    def fingerprint(self) -> str | None:
        """Return what changes with the images that are in no files of their own."""


def estimated_bytes(dataset: CachedSet, decode: Callable[[int], Decoded], looked_at: int = 16) -> int:
    """Return about how many bytes the decoded images take, from the sizes of some evenly spread ones.

    Args:
        dataset: the images.
        decode: decodes image number ``index``.
        looked_at: number of images to look at.
    """
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(looked_at, len(dataset))).astype(int)).tolist()
    return round(sum(decode(index).image.size for index in indices) / len(indices) * len(dataset))


class RamCache:
    """All images of a data set, decoded when the cache is made.

    They take height x width x 3 bytes each, once per process of a run and split: the workers of a process share them,
    whether they are forked or spawned, but every rank decodes and keeps all images of its own, so that a machine with 8
    ranks holds them 8 times. :class:`DiskCache` is shared by the ranks.

    Args:
        dataset: the images.
        decode: decodes image number ``index``.
        threads: that decode.

    Raises:
        ConfigurationError: the images would not fit into the free memory.
    """

    def __init__(self, dataset: CachedSet, decode: Callable[[int], Decoded], threads: int = 1) -> None:
        needed = estimated_bytes(dataset, decode)
        _check_space("ram", needed, _free_memory(), "memory", "take data.cache=disk or leave it out")
        self._arenas: list[Tensor] = []
        self._free = 0
        self._entries: list[tuple[int, int, tuple[int, int], int, tuple[int, int]]] = []
        with ThreadPoolExecutor(threads) as pool:
            for decoded in pool.map(decode, range(len(dataset))):
                self._add(decoded)

    def _add(self, decoded: Decoded) -> None:
        size = decoded.image.size
        if size > self._free:
            self._arenas.append(torch.empty(max(_ARENA_BYTES, size), dtype=torch.uint8))
            self._free = len(self._arenas[-1])
        start = len(self._arenas[-1]) - self._free
        self._arenas[-1][start : start + size] = torch.from_numpy(np.ascontiguousarray(decoded.image)).flatten()
        self._free -= size
        height, width = decoded.image.shape[:2]
        self._entries.append((len(self._arenas) - 1, start, (height, width), decoded.factor, decoded.size))

    def get(self, index: int, decode: Callable[[], Decoded]) -> Decoded:
        """Return image number ``index``."""
        arena, start, (height, width), factor, size = self._entries[index]
        pixels = self._arenas[arena][start : start + height * width * 3].numpy().reshape(height, width, 3)
        pixels.flags.writeable = False
        return Decoded(pixels, factor, size)


class DiskCache:
    """Decoded images in memory-mapped files, one per image, that runs, ranks and workers share.

    A file is named after what its image is made of: the data set's class and arguments, the index, and path, size and
    time of change of the image file; of images that are in no files of their own (in an archive, a database or an arrow
    table) the data set's :meth:`~detlit.data.DetectionDataset.fingerprint`. So a changed data set never meets old
    images. Remove the folder to free the space.
    Files are written beside their place and then renamed: whoever reads one finds it whole.

    Args:
        dataset: the images.
        decode: decodes image number ``index``.
        folder: where to keep them.
        variant: what else the images depend on.

    Raises:
        ConfigurationError: the images do not fit on the disk, or the data set does not tell which images it has.
    """

    def __init__(
        self, dataset: CachedSet, decode: Callable[[int], Decoded], folder: str | Path, variant: str = ""
    ) -> None:
        self._dataset = dataset
        fingerprint = _fingerprint_of(dataset)
        self._folder = Path(folder).expanduser() / _name_of(dataset, [variant, *([fingerprint] if fingerprint else [])])
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            present = sum(1 for entry in os.scandir(self._folder) if entry.name.endswith(_SUFFIX))
        except OSError as error:
            raise ConfigurationError(
                f"the cache folder {self._folder} cannot be used ({error.strerror}): set data.cache_dir to another."
            ) from error
        missing = max(0, len(dataset) - present) / len(dataset)
        free = shutil.disk_usage(self._folder).free
        needed = round(estimated_bytes(dataset, decode) * missing) if missing else 0
        _check_space("disk", needed, free, str(folder), "set data.cache_dir to another disk or leave data.cache out")

    def get(self, index: int, decode: Callable[[], Decoded]) -> Decoded:
        """Return image number ``index``; decode and keep it, if it is not kept yet."""
        file = self._file(index)
        try:
            return _read(file)
        except (FileNotFoundError, ValueError):  # the latter is of a file that a crash of the machine has cut short
            decoded = decode()
        self._write(file, decoded)
        return decoded

    def _file(self, index: int) -> Path:
        path = self._dataset.image_path(index)
        parts = [str(index)]
        if path is not None:
            status = path.stat()
            parts += [str(path.absolute()), str(status.st_size), str(status.st_mtime_ns)]
        return self._folder / (hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32] + _SUFFIX)

    def _write(self, file: Path, decoded: Decoded) -> None:
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            with draft.open("wb") as stream:
                stream.write(np.array([*decoded.image.shape[:2], decoded.factor, *decoded.size], "<u4").tobytes())
                stream.write(np.ascontiguousarray(decoded.image).data)
            draft.replace(file)
        except OSError as error:
            draft.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ConfigurationError(
                    f"the disk of the image cache {self._folder} is full: free some space, set data.cache_dir to "
                    "another disk, or leave data.cache out."
                ) from error
            raise


def _read(file: Path) -> Decoded:
    with file.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    height, width, factor, *size = np.frombuffer(content, "<u4", count=5).tolist()
    image = np.frombuffer(content, np.uint8, offset=_HEADER_BYTES).reshape(height, width, 3)
    return Decoded(image, factor, (size[0], size[1]))


def _fingerprint_of(dataset: CachedSet) -> str | None:
    """Return the fingerprint of images that are in no files of their own, ``None`` where all are files."""
    fingerprint = dataset.fingerprint()
    if fingerprint is None:
        loose = next((index for index in range(len(dataset)) if dataset.image_path(index) is None), None)
        if loose is not None:
            raise ConfigurationError(
                f"data.cache=disk cannot notice changes of image {loose} of {type(dataset).__name__}, which is no file "
                "of its own: take data.cache=ram, or give the data set a method fingerprint()."
            )
    return fingerprint


def _name_of(dataset: CachedSet, details: list[str]) -> str:
    """Return a name for the data set that changes with everything it was made of."""
    try:
        description = json.dumps([spec_of(dataset), *details], sort_keys=True)  # type: ignore[arg-type]
    except CheckpointError as error:
        raise ConfigurationError(
            f"data.cache=disk cannot tell the images of {type(dataset).__name__} from those of another run, because "
            "it was made from objects: take data.cache=ram or leave it out."
        ) from error
    return hashlib.sha256(description.encode()).hexdigest()[:16]


def _check_space(kind: str, needed: int, free: int, where: str, cure: str) -> None:
    if needed > 0.9 * free:
        raise ConfigurationError(
            f"data.cache={kind} needs about {_gigabytes(needed)} for the decoded images, and {_gigabytes(free)} are "
            f"free ({where}): {cure}."
        )


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 5e7 else f"{number / 1e6:.3g} MB"


def _free_memory() -> int:
    """Return the bytes of memory that can be had without swapping, all there is where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
