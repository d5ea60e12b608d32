"""Weights of one detector in another: which tensors fit, which do not, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from detlit.errors import CheckpointError, ConfigurationError, abridged
from detlit.models.class_names import known_names
from detlit.models.detector import Detector
from detlit.models.input_channels import adapt_input_channels
from detlit.models.weights import Weights, is_class_layer

__all__ = ["LoadReport", "Mode", "transfer"]

Mode = Literal["auto", "strict", "backbone", "matching"]
"""What of a file to load, see :func:`~detlit.models.checkpoints.load_weights`."""


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a detector and of a file; as a string, some lines to print.

    Attributes:
        source: the file and who wrote it.
        loaded: tensors of the detector that were taken from the file as they are.
        skipped: tensors of the detector that keep their values, all or some of them, each with the reason.
        unexpected: tensors of the file that were left out, each with the reason.
        kept_classes: classes whose rows in the class layers, which count as skipped, were taken from the file.
        adapted: tensors, counted as loaded, that were fitted to another number of image channels.
        notes: sentences on what else the weights want of the detector.
    """

    source: str
    loaded: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    unexpected: Mapping[str, str] = field(default_factory=dict)
    kept_classes: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return a line on the whole, and one for each reason."""
        lines = [f"{self.source}: loaded {len(self.loaded)} of {len(self.loaded) + len(self.skipped)} tensors"]
        for what, reasons in (("not loaded", self.skipped), ("left out", self.unexpected)):
            for reason in dict.fromkeys(reasons.values()):
                names = [name for name, given in reasons.items() if given == reason]
                lines.append(f"  {what}, {reason}: {abridged(names, 3)}")
        if self.adapted:
            lines.append(f"  fitted to another number of image channels: {abridged(self.adapted, 3)}")
        if self.kept_classes:
            lines.append(f"  but loaded for the classes of the same name: {abridged(self.kept_classes, 3)}")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def transfer(
    detector: Detector, weights: Weights, source: str, *, mode: Mode = "auto", class_names: Sequence[str] | None = None
) -> LoadReport:
    """Load weights that were read before, see :func:`~detlit.models.checkpoints.load_weights`.

    Args:
        detector: changed in place.
        weights: what to load.
        source: what messages call the weights.
        mode: how much to load.
        class_names: the detector's classes, in order.

    Raises:
        CheckpointError: the weights do not fit; the detector is as before.
        ConfigurationError: an unknown mode, or another number of names than of classes.
    """
    _check_arguments(detector, mode, class_names)
    own, theirs = detector.state_dict(), dict(weights.state_dict)
    adapted = {} if mode == "strict" else _adapted(detector, own, theirs)
    theirs |= adapted
    skipped = {name: why for name in own if (why := _misfit(name, own, theirs, mode))}
    unexpected = {name: why for name in theirs if name not in own and (why := _misfit(name, own, theirs, mode))}
    values = {name: theirs[name] for name in own if name not in skipped}
    rows = _rows_by_name(detector, weights, class_names) if mode == "auto" else None
    if rows is not None:
        class_layers = {name: _with_rows(own[name], theirs.get(name), rows) for name in own if is_class_layer(name)}
        values |= class_layers
        skipped |= dict.fromkeys(class_layers, _other_classes(detector, weights))
    source = f"{source} ({weights.origin})"
    misfits = [name for name in (*skipped, *unexpected) if _must_fit(name, mode, rows)]
    if misfits or not values:
        raise CheckpointError(_refusal(source, misfits, detector, weights, mode))
    detector.load_state_dict(values, strict=False)
    return LoadReport(
        source,
        tuple(name for name in values if name not in skipped),
        skipped,
        unexpected,
        tuple(class_names[row] for row in rows) if rows and class_names else (),
        tuple(adapted),
    )


def _check_arguments(detector: Detector, mode: Mode, class_names: Sequence[str] | None) -> None:
    if mode not in get_args(Mode):
        raise ConfigurationError(f"mode={mode!r} is no way to load weights: choose one of {', '.join(get_args(Mode))}.")
    if class_names is not None and len(class_names) != detector.num_classes:
        raise ConfigurationError(
            f"{len(class_names)} class names for a detector with {detector.num_classes} classes: give one per class."
        )


def _adapted(detector: Detector, own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the convolutions on images that differ in their channels alone, fitted to those of the detector."""
    channels = detector.backbone.in_channels
    return {
        name: adapt_input_channels(theirs[name], channels)
        for name, value in own.items()
        if name.startswith("backbone.")
        and name in theirs
        and value.ndim == theirs[name].ndim == 4
        and value.shape[1] == channels != theirs[name].shape[1] == 3
        and value.shape[:1] + value.shape[2:] == theirs[name].shape[:1] + theirs[name].shape[2:]
    }


def _misfit(name: str, own: Mapping[str, Tensor], theirs: Mapping[str, Tensor], mode: Mode) -> str | None:
    """Return why a tensor of the detector or of the file cannot be loaded, ``None`` if it can."""
    if mode == "backbone" and not name.startswith("backbone."):
        return "outside the backbone"
    if name not in theirs:
        return "not in the file"
    if name not in own:
        return "not in the detector"
    if own[name].shape != theirs[name].shape:
        return f"shape {list(theirs[name].shape)} in the file and {list(own[name].shape)} here"
    return None


def _must_fit(name: str, mode: Mode, rows: Mapping[int, int] | None) -> bool:
    if mode == "backbone":
        return name.startswith("backbone.")
    return mode == "strict" or (mode == "auto" and not (rows is not None and is_class_layer(name)))


def _rows_by_name(detector: Detector, weights: Weights, class_names: Sequence[str] | None) -> dict[int, int] | None:
    """Return the row in the file of each class known to both sides, by its row here; ``None`` to take rows as they are.

    They are taken as they are if the number of classes agrees and no class is known to be in another place.
    """
    ours, theirs = known_names(class_names), known_names(weights.class_names)
    rows = {ours.index(name): theirs.index(name) for name in ours if name in theirs} if ours and theirs else {}
    if weights.num_classes == detector.num_classes and all(row == source for row, source in rows.items()):
        return None
    return rows


def _with_rows(own: Tensor, theirs: Tensor | None, rows: Mapping[int, int]) -> Tensor:
    """Return a class layer's tensor with the rows of classes that the file knows."""
    if theirs is None or own.shape[1:] != theirs.shape[1:]:
        return own
    values = own.clone()
    values[list(rows)] = theirs[list(rows.values())].to(own)
    return values


def _other_classes(detector: Detector, weights: Weights) -> str:
    if weights.num_classes == detector.num_classes:
        return "classes in another order in the file"
    return f"{weights.num_classes} classes in the file and {detector.num_classes} here"


def _refusal(source: str, misfits: Sequence[str], detector: Detector, weights: Weights, mode: Mode) -> str:
    if mode == "strict" and weights.num_classes != detector.num_classes and all(map(is_class_layer, misfits)):
        return (
            f"{source} has {weights.num_classes} classes and the detector {detector.num_classes}: "
            "load it with mode='auto', which starts the last layers of the classes afresh."
        )
    if not misfits:
        return f"{source} has no tensor in common with the detector: build the detector it was trained as."
    return (
        f"{source} does not fit the detector in {len(misfits)} tensors, {abridged(misfits, 3)}: build the detector it "
        "was trained as, or load what matches with mode='matching'."
    )
