"""Which detector a state dict belongs to."""

from collections.abc import Mapping

import torch
from torch import Tensor

from detlit.errors import CheckpointError
from detlit.models import presets
from detlit.models.weights import Weights

__all__ = ["recognize_preset"]


def recognize_preset(weights: Weights, source: str) -> str:
    """Return the name of the preset whose tensors have the names and shapes of the weights.

    Args:
        weights: what a file holds.
        source: what messages call the weights.

    Raises:
        CheckpointError: there is none.
    """
    shapes = _shapes(weights.state_dict)
    for name in presets.__all__:
        if _preset_shapes(name, weights.num_classes or 1) == shapes:
            return name
    raise CheckpointError(
        f"{source} ({weights.origin}) has not the shapes of any preset: "
        "name its detector with --model, a YAML file like those in configs/model."
    )


def _preset_shapes(name: str, num_classes: int) -> dict[str, torch.Size]:
    with torch.device("meta"):  # names and shapes without memory
        return _shapes(getattr(presets, name)(num_classes).state_dict())


def _shapes(state_dict: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state_dict.items()}
