"""Layouts of the files that SuperGradients writes and published."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from detlit.errors import CheckpointError, DetlitError
from detlit.models.super_gradients.names import from_super_gradients
from detlit.models.super_gradients.processing import preprocessing_from_super_gradients
from detlit.models.super_gradients.published import COCO_CLASSES, Published, published_with
from detlit.models.weights import Weights
from detlit.structures import Preprocessing

__all__ = ["weights_from_super_gradients"]

_BRANCH = re.compile(r"\.branch_[13]x[13]\.")


def weights_from_super_gradients(stored: Any) -> Weights:
    """Return the weights in a file of SuperGradients, or in a bare state dict, its own or detlit's.

    ``ckpt_best``, ``ckpt_latest`` and ``average_model`` hold ``net``, the averaged ``ema_net`` if an EMA ran, which is
    preferred, and ``processing_params``. What the latter does not tell is that of the published weights of the family;
    80 classes without names are COCO's.

    Args:
        stored: what was in the file.

    Raises:
        CheckpointError: another layout, or branches that were fused before they were saved.
    """
    values, origin = _state_dict(stored)
    if any(".rbr_reparam." in name for name in values) and not any(map(_BRANCH.search, values)):
        raise CheckpointError(
            "its branches were fused before it was saved, so that it cannot be trained on: "
            "use a checkpoint of the training run, such as ckpt_best.pth."
        )
    weights = Weights(from_super_gradients(values), origin)
    published = published_with(values)
    if published is None:
        return weights
    params = stored.get("processing_params") or {}
    class_names, names_note = _class_names(params, weights.num_classes)
    preprocessing, input_note = _preprocessing(params, published)
    score_threshold, nms_threshold = _thresholds(params, published)
    return Weights(
        weights.state_dict,
        origin,
        class_names,
        preprocessing,
        score_threshold,
        nms_threshold,
        notes=tuple(note for note in (names_note, input_note) if note),
    )


def _state_dict(stored: Any) -> tuple[Mapping[str, Tensor], str]:
    """Return the state dict to use, and what to call it."""
    if isinstance(stored, Mapping):
        for key in ("ema_net", "net"):
            if _is_state_dict(stored.get(key)):
                return stored[key], f"SuperGradients, {key}"
        if _is_state_dict(stored):
            return stored, "a state dict"
        if "net" in stored:
            raise CheckpointError(
                "its 'net' holds no tensors, as SuperGradients leaves it before the first good epoch."
            )
    raise CheckpointError("it is neither a checkpoint of detlit or SuperGradients nor a state dict.")


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0 and all(isinstance(item, Tensor) for item in value.values())


def _class_names(params: Mapping[str, Any], num_classes: int | None) -> tuple[tuple[str, ...] | None, str]:
    """Return the names, and where they come from if not from the file."""
    if names := params.get("class_names"):
        return tuple(str(name) for name in names), ""
    if num_classes == len(COCO_CLASSES):
        return COCO_CLASSES, "it names no classes: its 80 are taken for COCO's."
    return None, "it names no classes."


def _preprocessing(params: Mapping[str, Any], published: Published) -> tuple[Preprocessing | None, str]:
    """Return how images become input, and where that comes from if not from the file, or why it is not known."""
    processor = params.get("image_processor")
    if not processor:
        return published.preprocessing, f"it does not say how images become input: as for published {published.family}."
    try:
        return preprocessing_from_super_gradients(processor), ""
    except DetlitError as error:
        return None, str(error)


def _thresholds(params: Mapping[str, Any], published: Published) -> tuple[float, float]:
    """Return score and NMS threshold; SuperGradients may have stored the latter as both."""
    score, nms = params.get("conf"), params.get("iou")
    return (
        published.score_threshold if score is None or score == nms else float(score),
        published.nms_threshold if nms is None else float(nms),
    )
