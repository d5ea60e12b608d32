"""Named parameter groups: weight decay touches only what should shrink, and parts learn at rates of their own."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from detlit.errors import ConfigurationError
from detlit.optim.names import dotted_prefixes, hint

__all__ = ["parameter_groups"]

_NORM_LAYERS = (nn.LayerNorm, nn.RMSNorm)
"""Normalisations whose scale may have several dimensions; the scales of all others have one."""

_KINDS = ("weight", "norm", "bias")


def parameter_groups(
    module: nn.Module,
    zero_weight_decay_on_bias_and_norm: bool = True,
    learning_rates: Mapping[str, float] | None = None,
    weight_decays: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Return the trainable parameters of a module as the optimizer groups ``weight``, ``norm`` and ``bias``.

    Each trainable parameter is in exactly one group, also when modules share it; groups without parameters are left
    out. ``bias`` holds every bias, ``norm`` the scales of normalisation layers and other parameters of at most one
    dimension (learnable scalars, layer scales), ``weight`` the rest. Parts with a learning rate of their own have such
    groups of their own, ``backbone/weight``, ``backbone/norm`` and ``backbone/bias``, and what has a weight decay of
    its own is apart from the rest, as in ``0.001/weight``.

    Args:
        module: any module.
        zero_weight_decay_on_bias_and_norm: set ``weight_decay`` of ``norm`` and ``bias`` to 0, whatever the optimizer's
            own is; see section 3.1 of https://arxiv.org/abs/1812.01187.
        learning_rates: peak learning rates of submodules and parameters by name, such as ``{"backbone": 1e-4}``; where
            one is inside another the inner one counts. All others have the optimizer's own. A schedule that scales the
            rates, as :class:`~detlit.optim.WarmupCosine` does, scales these alike.
        weight_decays: weight decays by regular expression, such as ``{"^head": 0.001, "norm": 0.01}``, looked for
            in the names of parameters of every kind. The first that is found counts.

    Returns:
        Dicts with ``name``, ``params`` and, where they differ from the optimizer's, ``lr`` and ``weight_decay``;
        loggers show the names.

    Raises:
        ConfigurationError: a learning rate that is no positive number, a weight decay that is negative, one of them
            that no trainable parameter would have, or an expression that cannot be read.
    """
    rates, decays = _checked_rates(learning_rates or {}), _checked_decays(weight_decays or {})
    norm_scales = _ids_of_norm_scales(module)
    default = {kind: 0.0 if zero_weight_decay_on_bias_and_norm and kind != "weight" else None for kind in _KINDS}
    of_any_kind = dict.fromkeys(decays.values())
    groups: dict[tuple[str, float | None, str], list[nn.Parameter]] = {
        (part, decay, kind): [] for part in ("", *rates) for decay in (None, *of_any_kind) for kind in _KINDS
    }
    unused = set(decays)
    for path, parameter in module.named_parameters():
        if parameter.requires_grad:
            kind = _kind(path, parameter, norm_scales)
            pattern = next((pattern for pattern in decays if pattern.search(path)), None)
            unused.discard(pattern)
            decay = None if pattern is None else decays[pattern]
            groups[_innermost(path, rates), decay, kind].append(parameter)
    _refuse_unused(module, rates, {part for (part, _, _), parameters in groups.items() if parameters})
    for pattern in decays:
        if pattern in unused:
            raise ConfigurationError(
                f"weight_decays names {pattern.pattern!r}, which is found first in no trainable parameter of "
                f"{type(module).__name__}: correct it, drop it, or move it up."
            )
    return [
        {
            "name": "/".join(filter(None, (part, "" if decay is None else f"{decay:g}", kind))),
            "params": parameters,
            **({"lr": rates[part]} if part else {}),
            **_only_given("weight_decay", default[kind] if decay is None else decay),
        }
        for (part, decay, kind), parameters in groups.items()
        if parameters
    ]


def _only_given(name: str, value: float | None) -> dict[str, float]:
    return {} if value is None else {name: value}


def _kind(path: str, parameter: nn.Parameter, norm_scales: set[int]) -> str:
    if "bias" in path.rpartition(".")[2]:
        return "bias"
    return "norm" if parameter.ndim <= 1 or id(parameter) in norm_scales else "weight"


def _ids_of_norm_scales(module: nn.Module) -> set[int]:
    layers = (layer for layer in module.modules() if isinstance(layer, _NORM_LAYERS))
    return {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}


def _innermost(path: str, parts: Iterable[str]) -> str:
    """Return the longest of the parts that a parameter is in, ``""`` where it is in none."""
    around = dotted_prefixes(path)
    return max((part for part in parts if part in around), key=len, default="")


def _checked_rates(learning_rates: Mapping[str, float]) -> dict[str, float]:
    for part, rate in learning_rates.items():
        if not (math.isfinite(rate) and rate > 0):
            raise ConfigurationError(
                f"the learning rate of {part!r} is {rate}: choose a positive one, or freeze what is not to learn."
            )
    return dict(learning_rates)


def _checked_decays(weight_decays: Mapping[str, float]) -> dict[re.Pattern[str], float]:
    decays = {}
    for pattern, decay in weight_decays.items():
        if not (math.isfinite(decay) and decay >= 0):
            raise ConfigurationError(f"the weight decay of {pattern!r} is {decay}: choose 0 or more.")
        try:
            decays[re.compile(pattern)] = decay
        except re.error as error:
            raise ConfigurationError(
                f"weight_decays names {pattern!r}, which is no regular expression ({error}): correct it."
            ) from error
    return decays


def _refuse_unused(module: nn.Module, rates: Mapping[str, float], used: set[str]) -> None:
    """Refuse a learning rate that nothing has; a typo would train with another one without a word."""
    paths = [path for path, _ in module.named_parameters()]
    for part in (part for part in rates if part not in used):
        if any(part in dotted_prefixes(path) for path in paths):
            raise ConfigurationError(
                f"learning_rates names {part!r}, all of which is frozen or has other rates: drop one of the settings."
            )
        raise ConfigurationError(
            f"learning_rates names {part!r}, which no part of {type(module).__name__} is called (all others take the "
            f"optimizer's rate): {hint(module, part)}"
        )
