"""Image pipelines of SuperGradients as :class:`~detlit.structures.Preprocessing`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from detlit.errors import CheckpointError
from detlit.structures import Preprocessing

__all__ = ["preprocessing_from_super_gradients"]

_PADDING = {"DetectionCenterPadding": "center", "DetectionBottomRightPadding": "top_left"}
_RESIZING = {"DetectionLongestMaxSizeRescale": True, "DetectionRescale": False}
"""Whether each keeps the ratio of the sides."""


def preprocessing_from_super_gradients(image_processor: Any) -> Preprocessing:
    """Return what ``processing_params["image_processor"]`` of a checkpoint does to an RGB image.

    Args:
        image_processor: names and arguments, ``{"ComposeProcessing": {"processings": [...]}}``.

    Raises:
        CheckpointError: a step that :class:`~detlit.structures.Preprocessing` has no counterpart of, or no resizing.
        ConfigurationError: a size that is no multiple of 32.
    """
    settings: dict[str, Any] = {}
    normalization = _Normalization()
    reverse = False
    for name, arguments in _steps(image_processor):
        if name in _RESIZING:
            settings |= {"content_size": _pair(arguments["output_shape"]), "keep_ratio": _RESIZING[name]}
        elif name in _PADDING:
            settings |= {"size": _pair(arguments["output_shape"]), "anchor": _PADDING[name]}
            settings["pad_value"] = int(arguments.get("pad_value", 114))
        elif name == "ReverseImageChannels":
            reverse = not reverse
            normalization.reverse()
        elif name == "StandardizeImage":
            normalization.append([0.0], [float(arguments.get("max_value", 255.0))])
        elif name == "NormalizeImage":
            normalization.append(_floats(arguments["mean"]), _floats(arguments["std"]))
        elif name != "ImagePermute":
            raise CheckpointError(
                f"the checkpoint's images go through {name}, which has no counterpart in detlit: give the "
                "preprocessing yourself."
            )
    if "content_size" not in settings:
        raise CheckpointError("the checkpoint does not resize its images: give the preprocessing yourself.")
    settings.setdefault("size", settings["content_size"])
    if settings["content_size"] == settings["size"]:
        del settings["content_size"]
    return Preprocessing(channel_order="BGR" if reverse else "RGB", **(settings | normalization.mean_and_std()))


class _Normalization:
    """The composition of ``(x - mean) / std`` steps, ``x`` in 0 to 255, in units of 0 to 1."""

    def __init__(self) -> None:
        self.mean = [0.0] * 3
        self.std = [1 / 255] * 3

    def append(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Add a step; one number stands for all channels."""
        mean, std = (values * 3 if len(values) == 1 else values for values in (list(mean), list(std)))
        self.mean = [m + s * step for m, s, step in zip(self.mean, self.std, mean, strict=True)]
        self.std = [s * step for s, step in zip(self.std, std, strict=True)]

    def reverse(self) -> None:
        """Follow the channels, which are reversed after these steps."""
        self.mean.reverse()
        self.std.reverse()

    def mean_and_std(self) -> dict[str, tuple[float, ...] | None]:
        """Return arguments of ``Preprocessing``, ``None`` for what changes nothing, without the noise of float32."""
        mean, std = (tuple(float(f"{value:.7g}") for value in values) for values in (self.mean, self.std))
        return {"mean": mean if any(mean) else None, "std": std if set(std) != {1.0} else None}


def _steps(processor: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and arguments of each step; SuperGradients writes ``name`` or ``{name: arguments}``."""
    if isinstance(processor, str):
        yield processor, {}
        return
    for name, arguments in processor.items():
        if name == "ComposeProcessing":
            for step in arguments["processings"]:
                yield from _steps(step)
        else:
            yield name, arguments or {}


def _pair(value: Any) -> tuple[int, int]:
    rows, columns = value if isinstance(value, Sequence) else (value, value)
    return int(rows), int(columns)


def _floats(values: Any) -> list[float]:
    """Return a number, a list or an array as a flat list."""
    return [float(value) for value in np.ravel(values)]
