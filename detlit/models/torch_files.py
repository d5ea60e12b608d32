"""Files of ``torch.save``, written whole or not at all, and read without running code from them."""

import codecs
import functools
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detlit.errors import CheckpointError

__all__ = ["damaged", "read_torch_file", "write_torch_file"]


def write_torch_file(content: Any, path: str | Path) -> None:
    """Write beside the path and rename, so that the file is whole, the old or the new, whatever happens.

    A killed process leaves at most ``NAME.part``, which the next save overwrites.

    Raises:
        CheckpointError: the disk is full, or the file cannot be written for another reason.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) or "inline_container" in str(error):  # torch's writer, where it was cut short
            reason = getattr(error, "strerror", None) or "the disk seems full"
            raise CheckpointError(
                f"{path} cannot be written ({reason}): make room there, or choose another folder."
            ) from error
        raise


def read_torch_file(path: str | Path, map_location: Any = "cpu") -> Any:
    """Return what is in a file of ``torch.save``: tensors, plain data, and numpy scalars, strings and arrays.

    Args:
        path: the file.
        map_location: as in :func:`torch.load`.

    Raises:
        CheckpointError: the file is missing, damaged, or holds other objects, which could run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: check the path.")
    try:
        with _numpy_allowed():
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    except Exception as error:  # on bytes that are no checkpoint the unpickler fails in any way it can
        raise CheckpointError(damaged(path)) from error


def damaged(path: str | Path) -> str:
    """Return the sentence for a file that is damaged, with the newest whole checkpoint beside it."""
    path = Path(path)
    others = sorted(path.parent.glob("*.ckpt"), key=lambda other: other.stat().st_mtime_ns, reverse=True)
    whole = next((other for other in others if other != path and _is_whole(other)), None)
    cure = "no other checkpoint is beside it" if whole is None else f"the newest whole one beside it is {whole}"
    return f"{path} is damaged or cut short: {cure}."


def _is_whole(path: Path) -> bool:
    """Tell whether every record of a file of ``torch.save`` reads back with the checksum it was written with."""
    try:
        with zipfile.ZipFile(path) as records:
            return records.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError):
        return False


def _refusal(path: Path, message: str) -> str:
    found = re.search(r"GLOBAL (?P<name>[\w.]+)", message)
    return (
        f"{path} cannot be read as weights: it holds {found['name'] if found else 'Python objects'}, which could run "
        "code, or is no checkpoint; save its state dict alone where it was made, if you trust it."
    )


@contextmanager
def _numpy_allowed() -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` read numpy values; ``torch.serialization.safe_globals`` is new in 2.5."""
    allowed = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals(_numpy_globals())
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


@functools.cache
def _numpy_globals() -> list[Any]:
    """Return what numpy names in a pickle of numbers, strings and arrays of them.

    The functions have moved from ``numpy.core`` in numpy 1 to ``numpy._core`` in numpy 2; either reads both. Bytes come
    as text to encode, which newer versions of torch allow by themselves.
    """
    functions: list[Any] = [np.float64(0.0).__reduce__()[0], np.zeros(0).__reduce__()[0]]  # scalar, _reconstruct
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    dtypes = {type(np.dtype(code)) for code in ("?", "i4", "i8", "f4", "f8", "U")}
    return [
        np.dtype,
        np.ndarray,
        codecs.encode,
        *dtypes,
        *(_found_in(module, x) for module in modules for x in functions),
    ]


def _found_in(module: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function under the name it has in ``module``."""

    @functools.wraps(function)
    def alias(*args: Any) -> Any:
        return function(*args)

    alias.__module__ = module
    return alias
