"""Parts of a network by name, as fine-tuning options address them."""

import difflib
from itertools import accumulate

from torch import nn

__all__ = ["dotted_prefixes", "hint"]


def dotted_prefixes(name: str) -> list[str]:
    """Return a parameter's name and those of the modules around it: ``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``."""
    return list(accumulate(name.split("."), "{}.{}".format))


def hint(module: nn.Module, name: str) -> str:
    """Return which part a name that fits none was meant to be: the nearest, or else what there is at the top."""
    known = dict.fromkeys(prefix for path, _ in module.named_parameters() for prefix in dotted_prefixes(path))
    for near in difflib.get_close_matches(name, known, 1, 0.6):
        return f"did you mean {near}?"
    return f"its parts are {', '.join(prefix for prefix in known if '.' not in prefix)}."
