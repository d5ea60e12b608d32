"""Named parameter groups, so that weight decay touches only what should shrink."""

from typing import Any

from torch import nn

__all__ = ["parameter_groups"]

_NORM_LAYERS = (nn.LayerNorm, nn.RMSNorm)
"""Normalisations whose scale may have several dimensions; the scales of all others have one."""


def parameter_groups(module: nn.Module, zero_weight_decay_on_bias_and_norm: bool = True) -> list[dict[str, Any]]:
    """Return the trainable parameters of a module as the optimizer groups ``weight``, ``norm`` and ``bias``.

    Each trainable parameter is in exactly one group, also when modules share it; groups without parameters are left
    out. ``bias`` holds every bias, ``norm`` the scales of normalisation layers and other parameters of at most one
    dimension (learnable scalars, layer scales), ``weight`` the rest.

    Args:
        module: any module.
        zero_weight_decay_on_bias_and_norm: set ``weight_decay`` of ``norm`` and ``bias`` to 0, whatever the optimizer's
            own is; see section 3.1 of https://arxiv.org/abs/1812.01187.

    Returns:
        Dicts with ``name``, ``params`` and, where it is 0, ``weight_decay``; loggers show the names.
    """
    norm_scales = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, _NORM_LAYERS)
        for parameter in layer.parameters(recurse=False)
    }
    groups: dict[str, list[nn.Parameter]] = {"weight": [], "norm": [], "bias": []}
    for path, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if "bias" in path.rpartition(".")[2]:
            groups["bias"].append(parameter)
        elif parameter.ndim <= 1 or id(parameter) in norm_scales:
            groups["norm"].append(parameter)
        else:
            groups["weight"].append(parameter)
    no_decay = {"weight_decay": 0.0} if zero_weight_decay_on_bias_and_norm else {}
    return [
        {"name": name, "params": parameters, **({} if name == "weight" else no_decay)}
        for name, parameters in groups.items()
        if parameters
    ]
