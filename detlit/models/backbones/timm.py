"""Backbones of timm, https://github.com/huggingface/pytorch-image-models."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from detlit.errors import ConfigurationError, MissingExtraError
from detlit.models.backbones.base import Backbone, forget_pretrained

__all__ = ["TimmBackbone"]


class TimmBackbone(Backbone):
    """Any network of timm that returns feature maps, under any neck that reads its strides.

    Weights trained on ImageNet expect its mean and std: set them in the detector's preprocessing.

    Args:
        name: as in ``timm.list_models()``, such as ``resnet50.a1_in1k``.
        pretrained: download weights; what is rebuilt from a checkpoint never does.
        out_indices: which of the network's feature maps to return, from fine to coarse; ``None`` for all.

    Raises:
        MissingExtraError: timm is not installed.
        ConfigurationError: timm has no such network or weights, or it returns no such feature maps.
    """

    def __init__(self, name: str, pretrained: bool = False, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        self.body = create_body(name, pretrained, out_indices)
        self.out_channels = tuple(self.body.feature_info.channels())
        self.strides = tuple(self.body.feature_info.reduction())
        self.channels_last = getattr(self.body, "output_fmt", None) == "NHWC"
        forget_pretrained(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map ``(B, 3, H, W)`` to one ``(B, out_channels[i], H / strides[i], W / strides[i])`` per stride."""
        features = self.body(images)
        return tuple(x.permute(0, 3, 1, 2) if self.channels_last else x for x in features)


def create_body(name: str, pretrained: bool, out_indices: Sequence[int] | None) -> Any:
    """Return timm's network without the layers that come after the last feature map."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(
            "TimmBackbone needs timm, which is not installed: run pip install 'detlit[timm]'."
        ) from error
    chosen: dict[str, Any] = {} if out_indices is None else {"out_indices": tuple(out_indices)}
    try:
        return timm.create_model(name, pretrained=pretrained, features_only=True, **chosen)
    except (IndexError, RuntimeError) as error:
        raise ConfigurationError(
            f"timm makes no backbone of name={name!r}, pretrained={pretrained}, out_indices={out_indices} ({error}): "
            "choose from timm.list_models()."
        ) from error
