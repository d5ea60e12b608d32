"""Backbones of torchvision, https://docs.pytorch.org/vision/stable/models.html."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.backbones.base import Backbone, forget_pretrained

__all__ = ["TorchvisionBackbone"]

_SIDE = 128
"""Pixels of the image whose feature maps tell channels and strides."""


class TorchvisionBackbone(Backbone):
    """Layers of any convolutional classifier of torchvision, under any neck that reads their strides.

    Weights trained on ImageNet expect its mean and std: set them in the detector's preprocessing.

    Args:
        name: as in ``torchvision.models.list_models()``, such as ``resnet50``.
        return_nodes: layers whose output to return, from fine to coarse, such as ``layer1`` to ``layer4`` of a ResNet;
            ``torchvision.models.feature_extraction.get_graph_node_names`` lists them.
        pretrained: download torchvision's best weights; what is rebuilt from a checkpoint never does.

    Raises:
        ConfigurationError: torchvision has no such network or layer, or the layer returns no feature map.
    """

    def __init__(self, name: str, return_nodes: Sequence[str], pretrained: bool = False) -> None:
        super().__init__()
        self.body = create_body(name, return_nodes, pretrained)
        shapes = feature_shapes(name, self.body)
        self.out_channels = tuple(channels for channels, _ in shapes)
        self.strides = tuple(_SIDE // side for _, side in shapes)
        forget_pretrained(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map ``(B, 3, H, W)`` to one ``(B, out_channels[i], H / strides[i], W / strides[i])`` per layer."""
        return tuple(self.body(images).values())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy in the mode of the original: torchvision's extractors are always copied in training mode."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.body.train(self.training)


def create_body(name: str, return_nodes: Sequence[str], pretrained: bool) -> nn.Module:
    """Return torchvision's network without the layers that come after the last of ``return_nodes``."""
    from torchvision.models import get_model
    from torchvision.models.feature_extraction import create_feature_extractor

    try:
        model = get_model(name, weights="DEFAULT" if pretrained else None)
    except ValueError as error:
        raise ConfigurationError(
            f"torchvision has no model name={name!r}: choose from torchvision.models.list_models()."
        ) from error
    try:
        body: nn.Module = create_feature_extractor(model, list(return_nodes))
    except ValueError as error:
        raise ConfigurationError(
            f"torchvision's {name} lacks one of return_nodes={list(return_nodes)}: "
            "choose from torchvision.models.feature_extraction.get_graph_node_names(model)."
        ) from error
    return body


@torch.no_grad()
def feature_shapes(name: str, body: nn.Module) -> list[tuple[int, int]]:
    """Return channels and side of each feature map of a square image."""
    image = torch.zeros(1, 3, _SIDE, _SIDE, device=next(body.parameters()).device)
    try:
        features: Mapping[str, Tensor] = body.eval()(image)
    except (AssertionError, RuntimeError) as error:
        raise ConfigurationError(
            f"torchvision's {name} takes no image of {_SIDE}x{_SIDE} pixels ({error}): "
            "choose a network that takes every size."
        ) from error
    body.train()
    for node, x in features.items():
        if x.ndim != 4 or x.shape[2] != x.shape[3]:
            raise ConfigurationError(
                f"{node} of torchvision's {name} returns {tuple(x.shape)}, which is no feature map (B, C, H, W): "
                "choose other return_nodes or another network."
            )
    return [(x.shape[1], x.shape[2]) for x in features.values()]
