"""``detlit completion``: a script that completes the commands, options and values in a shell."""

from argparse import Action
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from detlit.cli import COMMANDS, TRAINER_COMMANDS
from detlit.cli.completion_scripts import SCRIPTS, Shell
from detlit.cli.configs import config_folder
from detlit.cli.messages import FriendlyErrors
from detlit.cli.runs import NAMES

__all__ = ["Table", "Values", "completion", "completion_table", "main"]

PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed", "bf16-true", "16-true", "64-true")
ACCELERATORS = ("auto", "cpu", "gpu", "mps", "tpu")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_spawn", "fsdp")
PRINT_CONFIG = ("skip_default", "skip_unset")
WORDS_OR_FILES = ("--config", "-c", "--data", "--model.detector", "--ckpt_path")


class Values(NamedTuple):
    """What may follow an option: words, files, both, or, without either, something that cannot be listed."""

    words: tuple[str, ...] = ()
    files: bool = False
    optional: bool = False
    """Nothing may follow: another option may come at once."""


class Table(NamedTuple):
    """What completion knows."""

    options: dict[str, list[str]]
    """The options of each command, in order, without ``--trainer FILE``: what one looks for is ``--trainer.``."""
    values: dict[tuple[str, str], Values]
    """What follows the option of a command; the option is ``""`` for arguments without one."""


def main(argv: Sequence[str]) -> None:
    """Run ``detlit completion``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(
        prog="detlit completion", allow_abbrev=False, description="Print a script that completes detlit in a shell."
    )
    parser.add_function_arguments(completion, as_positional=True)
    completion(**parser.parse_args(list(argv[1:])).as_dict())


def completion(shell: Shell) -> None:
    """Print the script that completes detlit.

    Args:
        shell: What reads the script: bash from ~/.local/share/bash-completion/completions/detlit, zsh from a file
            _detlit in a folder of its fpath, fish from ~/.config/fish/completions/detlit.fish.
    """
    print(SCRIPTS[shell](*_grouped(completion_table())), end="")


def completion_table() -> Table:
    """Return the options of every command and what follows each, from the parsers of the commands."""
    from detlit.cli.parsers import command_parsers, options

    listed: dict[str, list[str]] = {}
    values: dict[tuple[str, str], Values] = {}
    for command, parsers in command_parsers().items():
        for parser in parsers:
            for option, action in options(parser):
                values[command, option] = _values(command, option, action)
            for option, action in _nested(parser):
                values.setdefault((command, option), _values(command, option, action))
        names = sorted(option for name, option in values if name == command and option)
        groups = {option.rpartition(".")[0] for option in names}
        listed[command] = [name for name in names if name not in groups or values[command, name].words]
    return Table(listed, values)


def _nested(parser: ArgumentParser) -> Iterator[tuple[str, Action]]:
    """Yield the options of the classes that options stand for, one level deep: ``--ema.decay``, ``--data.val.images``.

    Those of the Trainer's strategies, loggers and plugins are many and rarely set by a flag: they are left out.
    """
    from detlit.cli.lightning import LINKS
    from detlit.cli.parsers import arguments_of, classes_in, concrete, leading_arguments, options, type_of

    linked = {f"--{target.replace('.init_args', '')}" for target in LINKS.values()}
    for option, action in options(parser):
        typehint = type_of(action)
        if option.endswith((".help", "+")) or option.startswith("--trainer.") or _is_list(typehint):
            continue
        for cls in dict.fromkeys(found for base in classes_in(typehint) for found in concrete(base)):
            for inner in arguments_of(cls, leading_arguments(typehint)):
                for name in inner.option_strings:
                    nested = name.replace("--arguments", option)
                    if not nested.endswith((".help", "+")) and nested not in linked:
                        yield nested, inner


def _is_list(typehint: Any) -> bool:
    parts = get_args(typehint) if get_origin(typehint) in (Union, UnionType) else [typehint]
    return any(get_origin(part) is list for part in parts)


def _values(command: str, option: str, action: Action) -> Values:
    """Return what may follow an option."""
    from detlit.cli.parsers import classes_in, type_of

    if action.nargs == 0:
        return Values(optional=True)
    typehint = type_of(action)
    bases = classes_in(typehint)
    if option.endswith(".help"):
        return Values(_class_names(bases), optional=True)
    words = [*_known(command, option), *_literals(typehint), *_class_names(bases)]
    if (words or bases) and type(None) in get_args(typehint):
        words.append("null")
    no_files = bool(words) or _leaves(typehint) <= {int, float, type(None)}
    files = option in WORDS_OR_FILES or (command, option) == ("convert", "--model") or not no_files
    return Values(tuple(dict.fromkeys(words)), files, option == "--print_config")


def _known(command: str, option: str) -> Collection[str]:
    """Return words for an option whose type does not tell them."""
    from detlit.export.files import SUFFIXES
    from detlit.models import presets
    from detlit.prediction.files import FORMATS

    folder = config_folder()
    if option in ("--config", "-c"):
        data = _stems(folder, "data/*.yaml") if command == "check-data" else []
        return [*_stems(folder, "*.yaml"), *_stems(folder, "recipes/*.yaml"), *data]
    everywhere = {
        "--data": _stems(folder, "data/*.yaml"),
        "--model.detector": _stems(folder, "model/*.yaml"),
        "--print_config": PRINT_CONFIG,
        "--trainer.precision": PRECISIONS,
        "--trainer.accelerator": ACCELERATORS,
        "--trainer.strategy": STRATEGIES,
        "--trainer.devices": ("auto",),
    }
    by_command: dict[tuple[str, str], Collection[str]] = {
        **{(name, "--ckpt_path"): NAMES for name in TRAINER_COMMANDS},
        ("benchmark", "--model"): presets.__all__,
        ("benchmark", "--formats"): ("torch", *SUFFIXES),
        ("convert", "--model"): presets.__all__,
        ("export", "--dynamic"): ("batch,size", "batch", "size", "none"),
        ("predict", "--broken"): ("skip", "fail"),
        ("predict", "--save"): FORMATS,
    }
    return by_command.get((command, option), everywhere.get(option, ()))


def _stems(folder: Any, pattern: str) -> list[str]:
    return sorted(path.stem for path in folder.glob(pattern))


def _literals(typehint: Any) -> list[str]:
    """Return the words that a type spells out."""
    if get_origin(typehint) is Literal:
        return [str(value).lower() if isinstance(value, bool) else str(value) for value in get_args(typehint)]
    if typehint is bool:
        return ["true", "false"]
    if get_origin(typehint) in (Union, UnionType, list):
        return [word for part in get_args(typehint) for word in _literals(part)]
    return []


def _leaves(typehint: Any) -> set[Any]:
    """Return the types a type is made of."""
    parts = [part for part in get_args(typehint) if part is not Ellipsis]
    if get_origin(typehint) is Literal or not parts:
        return {typehint}
    return set().union(*(_leaves(part) for part in parts if not isinstance(part, list)))


def _class_names(bases: Sequence[type]) -> tuple[str, ...]:
    """Return the shortest name of each class that is clear; a detector is chosen by its config instead."""
    from detlit.cli.parsers import class_names, concrete

    classes = list(dict.fromkeys(cls for base in bases for cls in concrete(base) if cls is not base))
    bare = [cls.__name__ for cls in classes]
    return tuple(class_names(cls)[0 if bare.count(cls.__name__) == 1 else 1] for cls in classes)


def _grouped(table: Table) -> tuple[Mapping[str, str], list[tuple[list[str], list[str]]], dict[Values, list[str]]]:
    """Return what a script holds: commands, options by the commands that share them, ``COMMAND OPTION`` by values.

    A star in place of the command stands for all of them.
    """
    shared: dict[str, list[str]] = defaultdict(list)
    for command, listed in table.options.items():
        for option in listed:
            shared[option].append(command)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for option, commands in shared.items():
        groups[tuple(commands)].append(option)
    places: dict[Values, list[str]] = defaultdict(list)
    for option in dict.fromkeys(option for _, option in table.values):
        kinds = {command: kind for (command, name), kind in table.values.items() if name == option}
        if option and len(set(kinds.values())) == 1:
            places[next(iter(kinds.values()))].append(f"* {option}")
            continue
        for command, kind in kinds.items():
            places[kind].append(f"{command} {option}")
    return COMMANDS, [(list(commands), listed) for commands, listed in groups.items()], places
