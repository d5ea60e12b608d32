"""The post-prediction callback of a checkpoint."""

from collections.abc import Mapping
from typing import Any

from detlit.errors import ConfigurationError
from detlit.postprocess.base import PostPredictionCallback
from detlit.postprocess.nms import NMSPostPredictionCallback
from detlit.spec import build, spec_of

__all__ = ["stored_callback"]


def stored_callback(
    entry: Mapping[str, Any], *, allow_custom_code: bool = False, **changes: Any
) -> PostPredictionCallback:
    """Return the callback that a checkpoint describes, with some of its arguments changed.

    Args:
        entry: the checkpoint's ``"detlit"`` entry; one without a callback means
            :class:`~detlit.postprocess.NMSPostPredictionCallback`.
        allow_custom_code: also build a class from outside detlit and torch.
        **changes: arguments to use in place of the stored ones; ``None`` keeps those.

    Raises:
        ConfigurationError: the callback has no such argument.
        CheckpointError: it cannot be built.
    """
    spec = entry.get("module", {}).get("post_prediction_callback") or spec_of(NMSPostPredictionCallback())
    changes = {name: value for name, value in changes.items() if value is not None}
    for name, value in changes.items():
        if name not in spec["init_args"]:
            raise ConfigurationError(
                f"{name}={value} means nothing to {spec['class_path']}, the checkpoint's post-prediction callback: "
                "leave it out."
            )
    spec = {**spec, "init_args": {**spec["init_args"], **changes}}
    callback: PostPredictionCallback = build(spec, allow_custom_code=allow_custom_code)
    return callback
