"""What the parsers of the commands accept: the options, and the classes that may stand for their values."""

import inspect
import sys
from argparse import Action
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, get_args, get_origin

from jsonargparse import ArgumentParser, capture_parser

from detlit.cli import COMMANDS, TRAINER_COMMANDS, module_of

__all__ = [
    "arguments_of",
    "class_names",
    "classes_in",
    "command_parsers",
    "concrete",
    "leading_arguments",
    "options",
    "type_of",
]

_HOMES = ("detlit.", "lightning.", "torch.optim.")
"""Where the classes that configs choose among are; others may be loaded."""


def command_parsers() -> dict[str, list[ArgumentParser]]:
    """Return the parsers of every command as the commands themselves make them; check-data has two."""
    trainers: Any = capture_parser(import_module(module_of("fit")).main, ["fit"])._subcommands_action
    parsers: dict[str, list[ArgumentParser]] = {name: [trainers._name_parser_map[name]] for name in TRAINER_COMMANDS}
    for name in COMMANDS.keys() - parsers.keys():
        parsers[name] = [capture_parser(import_module(module_of(name)).main, [name])]
    check_data = import_module(module_of("check-data")).main
    parsers["check-data"].append(capture_parser(check_data, ["check-data", "--root", "."]))
    return {name: parsers[name] for name in COMMANDS}


def options(parser: ArgumentParser) -> Iterator[tuple[str, Action]]:
    """Yield each option string of a parser with its action, ``--help`` too, and ``""`` for positional arguments."""
    for action in parser._actions:
        names = [name for name in action.option_strings if name.startswith("-")]
        if names or not action.option_strings:
            yield from ((name, action) for name in names or [""])


def type_of(action: Action) -> Any:
    """Return the type that an option's value must have, ``None`` where it is not said."""
    return getattr(action, "_typehint", action.type)


def classes_in(typehint: Any) -> list[type]:
    """Return the classes in a type that configs choose among: of a union, a list, or what a callable returns."""
    if get_origin(typehint) is not None or get_args(typehint):
        arguments = get_args(typehint)
        chosen = arguments[-1:] if get_origin(typehint) is Callable else arguments
        return [found for argument in chosen for found in classes_in(argument)]
    return [typehint] if inspect.isclass(typehint) and _is_chosen(typehint) else []


def leading_arguments(typehint: Any) -> int:
    """Return how many arguments the caller gives, not the config: the parameters of an optimizer."""
    if get_origin(typehint) is Callable:
        given = get_args(typehint)[0]
        return len(given) if isinstance(given, list) else 0
    return max(map(leading_arguments, get_args(typehint)), default=0)


def concrete(base: type) -> list[type]:
    """Return the public classes that can be made of a base, itself included, in the order of their names."""
    found: dict[str, type] = {}

    def collect(cls: type) -> None:
        parts = [*cls.__module__.split("."), *cls.__qualname__.split(".")]
        hidden = any(part.startswith(("_", "<")) for part in parts) or getattr(cls, "_is_protocol", False)
        if _is_chosen(cls) and not hidden and not inspect.isabstract(cls):
            found[".".join(parts)] = cls
        subclasses: list[type] = type.__subclasses__(cls)
        for subclass in subclasses:
            collect(subclass)

    collect(base)
    return sorted(found.values(), key=lambda cls: (cls.__name__, cls.__module__))


def _is_chosen(cls: type) -> bool:
    return f"{cls.__module__}.".startswith(_HOMES)


def class_names(cls: type) -> list[str]:
    """Return the names a config may use for a class: the bare one first, then every module that has it."""
    parts = cls.__module__.split(".")
    modules = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    has_it = [name for name in modules if getattr(sys.modules.get(name), cls.__name__, None) is cls]
    return [cls.__name__, *(f"{name}.{cls.__name__}" for name in has_it)]


def arguments_of(cls: type, skip: int = 0) -> list[Action]:
    """Return the arguments of a class as options called ``--arguments.NAME``.

    Args:
        cls: the class.
        skip: the first so many are not set by a config.

    Raises:
        ValueError: they cannot be told.
    """
    parser = ArgumentParser(add_help=False)
    first = {skip} if skip else None
    try:
        parser.add_class_arguments(cls, "arguments", skip=first, fail_untyped=False, sub_configs=True)
    except (TypeError, ImportError) as error:  # an optional package is missing
        raise ValueError(f"the arguments of {cls.__name__} are unknown: {error}.") from error
    return [action for action in parser._actions if action.dest.startswith("arguments.")]
