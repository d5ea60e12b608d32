"""Weights from any supported file into a detector, with a report of what came of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detlit.errors import CheckpointError
from detlit.models.checkpoint_entry import check_entry, detector_weights
from detlit.models.detector import Detector
from detlit.models.super_gradients import weights_from_super_gradients
from detlit.models.torch_files import read_torch_file
from detlit.models.transfer import LoadReport, Mode, transfer
from detlit.models.weights import Weights
from detlit.structures import Preprocessing

__all__ = ["LoadReport", "load_weights", "read_weights"]


def load_weights(
    detector: Detector, path: str | Path, *, mode: Mode = "auto", class_names: Sequence[str] | None = None
) -> LoadReport:
    """Load the weights in a file into a detector, in place.

    Files are checkpoints of detlit, checkpoints and published weights of SuperGradients (YOLO-NAS and PP-YOLOE), and
    bare state dicts of either. Averaged weights are preferred. No file can run code.

    Args:
        detector: as built. Unless it was told its channel order, mean or std, it takes those of the weights; size and
            letterbox stay its own, because they belong to the data.
        path: the file.
        mode: ``"strict"``: all weights, one to one. ``"auto"``: the same, but if the number of classes differs, the
            last layers of the classes stay as they are, except the rows of classes that have the same name in the
            file; if only their order differs, the rows follow. ``"backbone"``: the whole backbone, nothing else.
            ``"matching"``: what agrees in name and shape.
        class_names: the detector's classes, in order.

    Returns:
        What was loaded and what was not, and why; print it.

    Raises:
        CheckpointError: the file is missing, damaged, holds code or other things than weights, or does not fit.
        ConfigurationError: an unknown mode, or another number of names than of classes.
    """
    weights = read_weights(path)
    report = transfer(detector, weights, str(path), mode=mode, class_names=class_names)
    return dataclasses.replace(report, notes=_take_normalization(detector, weights.preprocessing))


def _take_normalization(detector: Detector, wanted: Preprocessing | None) -> tuple[str, ...]:
    """Let the detector see colours as its weights did, and return what to say about it."""
    own = detector.preprocessing
    if wanted is None or _normalization(wanted) == _normalization(own):
        return ()
    if _normalization(own) != _normalization(Preprocessing()) or detector.backbone.in_channels != 3:
        return (
            f"trained on {_describe(wanted)}, and the detector takes {_describe(own)} as it was told to: "
            "leave that out of its preprocessing to use the weights as they were trained.",
        )
    detector.set_preprocessing(dataclasses.replace(own, **_normalization(wanted)))
    return (f"the detector now takes {_describe(wanted)}, as the weights were trained.",)


def _normalization(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the part of a preprocessing that the detector does itself."""
    return {name: getattr(preprocessing, name) for name in ("channel_order", "mean", "std")}


def _describe(preprocessing: Preprocessing) -> str:
    if preprocessing.mean is None and preprocessing.std is None:
        return f"{preprocessing.channel_order} images in [0, 1]"
    mean, std = preprocessing.mean or 0, preprocessing.std or 1
    return f"{preprocessing.channel_order} images normalized by mean {mean} and std {std}"


def read_weights(path: str | Path) -> Weights:
    """Return the weights in a file, see :func:`load_weights` for which, and what it says about classes and input.

    Raises:
        CheckpointError: the file is missing, damaged, or holds code or other things than weights.
    """
    stored = read_torch_file(path)
    if isinstance(stored, dict) and isinstance(stored.get("detlit"), dict):
        return _weights_from_detlit(stored, path)
    try:
        return weights_from_super_gradients(stored)
    except CheckpointError as error:
        raise CheckpointError(f"{path} holds no weights: {error}") from error


def _weights_from_detlit(stored: Mapping[str, Mapping[str, Any]], path: str | Path) -> Weights:
    entry = check_entry(stored, path)["detlit"]
    return Weights(
        detector_weights(stored),
        f"detlit {entry['versions']['detlit']}",
        tuple(entry["class_names"]),
        Preprocessing.from_dict(entry["preprocessing"]),
        entry.get("score_threshold"),
    )
