"""The weights in a file, whoever wrote it, and what the file says about their use."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from detlit.structures import Preprocessing

__all__ = ["Weights", "is_class_layer"]

_CLASS_LAYER = re.compile(r"^head\.(?:.*\.)?cls_pred\.(?:weight|bias)$")


@dataclass(frozen=True)
class Weights:
    """What :func:`~detlit.models.checkpoints.read_weights` found in a file.

    Attributes:
        state_dict: tensors under the names of detlit's modules.
        origin: where they come from, for messages, such as ``"SuperGradients, ema_net"``.
        class_names: names of the classes, if the file tells or its origin implies them.
        preprocessing: how images become input of these weights, likewise.
        score_threshold: least score of a detection worth showing, likewise.
        nms_threshold: of two boxes with a larger IoU the better one stays, likewise.
        notes: sentences on what of this the file does not tell.
    """

    state_dict: Mapping[str, Tensor]
    origin: str
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    score_threshold: float | None = None
    nms_threshold: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int | None:
        """Number of classes the head was trained for; ``None`` without such a head."""
        rows = [len(value) for name, value in self.state_dict.items() if is_class_layer(name) and value.ndim]
        return rows[0] if rows else None


def is_class_layer(name: str) -> bool:
    """Tell whether a tensor of a detector has a row per class: those of a head's modules called ``cls_pred``."""
    return _CLASS_LAYER.match(name) is not None
