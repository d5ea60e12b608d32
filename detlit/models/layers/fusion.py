"""Re-parameterisation: a convolution that computes what it and the normalization after it do in evaluation."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detlit.errors import ConfigurationError

__all__ = ["Fusable", "fold_batch_norm", "require_eval"]


class Fusable(nn.Module):
    """Base of layers that fewer layers can replace once they are trained; see :meth:`detlit.models.Detector.fuse`."""

    def fuse(self, full: bool) -> None:
        """Replace what can be replaced; a second call changes nothing.

        Args:
            full: also what training and quantization need, such as normalizations.

        Raises:
            ConfigurationError: the layer is in training mode.
        """
        raise NotImplementedError


def require_eval(module: nn.Module) -> None:
    """Refuse to fuse what still normalizes by the batch.

    Raises:
        ConfigurationError: the module is in training mode.
    """
    if module.training:
        raise ConfigurationError(
            f"{type(module).__name__} in training mode normalizes by the batch, which no convolution can do: "
            "call eval() before fuse()."
        )


def fold_batch_norm(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a convolution with bias that computes ``bn(conv(x))``, both in evaluation mode.

    Its weight is ``gamma / sqrt(variance + eps) * weight`` and its bias
    ``gamma / sqrt(variance + eps) * (bias - mean) + beta``.
    """
    with torch.no_grad():
        folded = fuse_conv_bn_eval(conv, bn)
    # torch freezes the bias of a convolution that had none.
    cast(Tensor, folded.bias).requires_grad_(conv.weight.requires_grad)
    return folded
