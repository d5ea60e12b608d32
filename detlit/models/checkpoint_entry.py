"""What makes a checkpoint self-contained: the versioned ``checkpoint["detlit"]`` entry, written and read here.

The entry is plain data, so the checkpoint loads with ``torch.load(weights_only=True)`` and needs no config beside it::

    {"format": 1, "module": {...}, "data": {...} or None, "preprocessing": {...}, "class_names": [...],
     "versions": {...}}

``module`` and ``data`` are constructor arguments as :mod:`detlit.spec` writes them.
"""

import pickle
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from detlit import __version__
from detlit.errors import CheckpointError
from detlit.models.detector import Detector
from detlit.spec import build
from detlit.structures import Preprocessing

__all__ = ["FORMAT", "detector_from_checkpoint", "make_entry", "read_checkpoint"]

FORMAT = 1
"""Version of the entry's layout; a reader refuses what is newer than itself."""


def make_entry(
    module: Mapping[str, Any], data: Mapping[str, Any] | None, preprocessing: Preprocessing, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return the entry for a module and a data module given as constructor arguments in plain data."""
    return {
        "format": FORMAT,
        "module": dict(module),
        "data": None if data is None else dict(data),
        "preprocessing": preprocessing.to_dict(),
        "class_names": list(class_names),
        "versions": {"detlit": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
    }


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the checkpoint in a file, without running code from it.

    Args:
        path: a ``.ckpt`` file that a :class:`~detlit.module.DetectionModule` was saved in.
        map_location: as in :func:`torch.load`.

    Raises:
        CheckpointError: the file is missing, damaged, holds code, is not detlit's, or is from a newer detlit.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: check --ckpt_path.")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} cannot be read as weights: it holds Python objects, which could run code, or is no checkpoint."
        ) from error
    except Exception as error:  # on bytes that are no checkpoint the unpickler fails in any way it can
        raise CheckpointError(
            f"{path} is damaged or cut short: use an earlier checkpoint, such as last.ckpt."
        ) from error
    entry = checkpoint.get("detlit") if isinstance(checkpoint, dict) else None
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path} was not written by detlit: it has no 'detlit' entry to rebuild a detector from.")
    if entry["format"] > FORMAT:
        raise CheckpointError(
            f"{path} was written by detlit {entry['versions']['detlit']} in format {entry['format']}, and this is "
            f"detlit {__version__}, which reads up to format {FORMAT}: upgrade detlit."
        )
    return checkpoint


def detector_from_checkpoint(checkpoint: Mapping[str, Any], *, allow_custom_code: bool = False) -> Detector:
    """Return the detector of a checkpoint with its weights (the averaged ones, if an EMA ran) and preprocessing.

    Args:
        checkpoint: what :func:`read_checkpoint` returned.
        allow_custom_code: also build classes from outside detlit and torch that the checkpoint names.

    Raises:
        CheckpointError: code that is not trusted, or weights that do not fit.
    """
    entry = checkpoint["detlit"]
    detector: Detector = build(entry["module"]["detector"], allow_custom_code=allow_custom_code)
    detector.set_preprocessing(Preprocessing.from_dict(entry["preprocessing"]))
    prefix = "detector."
    weights = {
        key.removeprefix(prefix): value for key, value in checkpoint["state_dict"].items() if key.startswith(prefix)
    }
    try:
        detector.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint's weights do not fit its own detector: {error}") from error
    return detector
