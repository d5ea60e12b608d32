"""Freezing parts of a network, for fine-tuning."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from detlit.errors import ConfigurationError
from detlit.optim.names import dotted_prefixes, hint

__all__ = ["freeze_parts", "keep_frozen_in_eval"]


def freeze_parts(module: nn.Module, patterns: Iterable[str]) -> None:
    """Stop parts of a module from learning: no gradients, and evaluation mode.

    Evaluation mode keeps the running statistics of batch norm, which gradients have no part in, and turns dropout off.
    ``module.train()`` ends it; :func:`keep_frozen_in_eval` brings it back.

    Args:
        module: any module.
        patterns: names of submodules, frozen with all they contain, or of parameters: ``backbone``,
            ``backbone.stages.0``. The wildcards are those of :mod:`fnmatch`, whose ``*`` also matches dots: ``neck.*``,
            ``*.bn.weight``.

    Raises:
        ConfigurationError: a pattern that no parameter is under, or nothing left to train.
    """
    patterns = list(patterns)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        matched = [name for name in parameters if any(fnmatchcase(part, pattern) for part in dotted_prefixes(name))]
        if not matched:
            raise ConfigurationError(
                f"freeze names {pattern!r}, which no part of {type(module).__name__} is called: {hint(module, pattern)}"
            )
        for name in matched:
            parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigurationError(f"freeze={patterns} leaves nothing to train: keep at least the head out of it.")
    keep_frozen_in_eval(module)


def keep_frozen_in_eval(module: nn.Module) -> None:
    """Put every submodule whose parameters are all frozen into evaluation mode."""
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()
