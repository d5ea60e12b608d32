"""What makes a checkpoint self-contained: the versioned ``checkpoint["detlit"]`` entry, written and read here.

The entry is plain data, so the checkpoint loads with ``torch.load(weights_only=True)`` and needs no config beside it::

    {"format": 1, "module": {...}, "data": {...} or None, "preprocessing": {...}, "class_names": [...],
     "versions": {...}, "score_threshold": 0.25}

``module`` and ``data`` are constructor arguments as :mod:`detlit.spec` writes them. ``score_threshold``, where somebody
knew it, is what to show of the detections; the one in ``module`` is for evaluation, and therefore lower.
"""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detlit import __version__
from detlit.errors import CheckpointError
from detlit.models.detector import Detector
from detlit.models.torch_files import read_torch_file
from detlit.spec import build
from detlit.structures import Preprocessing

__all__ = [
    "FORMAT",
    "check_entry",
    "detector_from_checkpoint",
    "detector_weights",
    "make_entry",
    "match_quantization",
    "read_checkpoint",
]

FORMAT = 1
"""Version of the entry's layout; a reader refuses what is newer than itself."""


def make_entry(
    module: Mapping[str, Any],
    data: Mapping[str, Any] | None,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    score_threshold: float | None = None,
) -> dict[str, Any]:
    """Return the entry for a module and a data module given as constructor arguments in plain data."""
    entry = {
        "format": FORMAT,
        "module": dict(module),
        "data": None if data is None else dict(data),
        "preprocessing": preprocessing.to_dict(),
        "class_names": list(class_names),
        "versions": {"detlit": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
    }
    return entry if score_threshold is None else {**entry, "score_threshold": score_threshold}


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the checkpoint in a file, without running code from it.

    Args:
        path: a ``.ckpt`` file that a :class:`~detlit.module.DetectionModule` was saved in.
        map_location: as in :func:`torch.load`.

    Raises:
        CheckpointError: the file is missing, damaged, holds code, is not detlit's, or is from a newer detlit.
    """
    return check_entry(read_torch_file(path, map_location), path)


def check_entry(checkpoint: Any, path: str | Path) -> dict[str, Any]:
    """Return what was in the file ``path`` if it is a checkpoint that this version can read.

    Raises:
        CheckpointError: it is not detlit's, or is from a newer detlit.
    """
    if not (isinstance(checkpoint, dict) and isinstance(checkpoint.get("detlit"), dict)):
        raise CheckpointError(
            f"{path} was not written by detlit, it has no 'detlit' entry to rebuild a detector from: "
            "if SuperGradients wrote it, run detlit convert first."
        )
    entry = checkpoint["detlit"]
    if entry["format"] > FORMAT:
        raise CheckpointError(
            f"{path} was written by detlit {entry['versions']['detlit']} in format {entry['format']}, and this is "
            f"detlit {__version__}, which reads up to format {FORMAT}: upgrade detlit."
        )
    return checkpoint


def detector_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict of the detector in a module's checkpoint."""
    prefix = "detector."
    state_dict: Mapping[str, Tensor] = checkpoint["state_dict"]
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


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
    try:
        detector.load_state_dict(detector_weights(checkpoint))
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint's weights do not fit its own detector: {error}") from error
    return detector


def match_quantization(detector: Detector, entry: Mapping[str, Any]) -> None:
    """Quantize a float detector if the weights to load into it are quantized.

    Args:
        detector: what the weights of the checkpoint are for, changed in place.
        entry: the ``"detlit"`` entry of the checkpoint.

    Raises:
        CheckpointError: it is the other way round.
    """
    spec = entry.get("module", {}).get("detector", {}).get("init_args", {})
    if spec.get("quantization") is not None and detector.quantization is None:
        if spec.get("fused") == "full":
            detector.eval().fuse(full=True).train()
        detector.quantize(build(spec["quantization"]))
    elif spec and spec.get("quantization") is None and detector.quantization is not None:
        raise CheckpointError(
            "the checkpoint is not quantized and this run is: start from its weights with model.weights, "
            "instead of resuming it."
        )
