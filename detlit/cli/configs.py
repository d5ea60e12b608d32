"""The configs that detlit ships, and what a config file says before it is parsed."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

import detlit
from detlit.errors import ConfigurationError

__all__ = [
    "config_folder",
    "find_config",
    "find_key",
    "find_part",
    "flags",
    "load_config",
    "with_shipped_configs",
    "with_shipped_parts",
]

PARTS = {"data": "data", "model.detector": "model"}
"""The folder of shipped configs for a part of a config, by its key."""

_HERE = Path()


def config_folder() -> Path:
    """Return the folder of the shipped configs: inside an installed package, or beside it in a source tree."""
    package = Path(detlit.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def find_config(name: str) -> Path:
    """Return the file a ``--config`` value means: a path, or the name of a shipped config such as ``quickstart``.

    Raises:
        ConfigurationError: neither a file nor a shipped config.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(config_folder().rglob("*.yaml"))}
    if name.removesuffix(".yaml") in shipped:
        return shipped[name.removesuffix(".yaml")]
    near = difflib.get_close_matches(path.stem, shipped, 1)
    hint = f"did you mean {near[0]}?" if near else f"the shipped ones are {', '.join(_runnable())}."
    raise ConfigurationError(f"there is no config {name}, neither a file nor a shipped one: {hint}")


def _runnable() -> list[str]:
    folder = config_folder()
    return [file.stem for file in sorted([*folder.glob("*.yaml"), *(folder / "recipes").glob("*.yaml")])]


def flags(argv: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield position, name and value of each ``--name VALUE`` or ``--name=VALUE``; ``-c`` is ``--config``."""
    for position, argument in enumerate(argv):
        name, equals, value = ("--config" if argument == "-c" else argument).partition("=")
        if name.startswith("--") and equals:
            yield position, name[2:], value
        elif name.startswith("--") and position + 1 < len(argv):
            yield position, name[2:], argv[position + 1]


def find_part(key: str, value: str, folder: Path = _HERE) -> Path | None:
    """Return the shipped config that a name such as ``yolo_nas_s`` means for a part of a config, if it is one.

    Args:
        key: of :data:`PARTS`.
        value: a name, or anything else that may stand there; a file of that name is preferred.
        folder: where relative file names start.
    """
    name = value.removesuffix(".yaml")
    file = config_folder() / PARTS[key] / f"{name}.yaml"
    return file if name and "/" not in name and not (folder / value).is_file() and file.is_file() else None


def with_shipped_configs(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the names of shipped configs replaced by their files.

    ``--config`` takes any of them, ``--data`` those in ``configs/data`` and ``--model.detector`` those in
    ``configs/model``.

    Raises:
        ConfigurationError: a config, or data, that is neither a file nor a shipped config.
    """
    resolved = list(argv)
    for position, name, value in flags(argv):
        if value.lstrip().startswith("{"):
            continue
        if name == "config":
            path: Path | None = find_config(value)
        elif name in PARTS:
            path = find_part(name, value)
            if path is None and name == "data" and not Path(value).exists():
                shipped = [file.stem for file in sorted((config_folder() / "data").glob("*.yaml"))]
                near = difflib.get_close_matches(value, shipped, 1)
                hint = f"did you mean {near[0]}?" if near else f"those are {', '.join(shipped)}."
                raise ConfigurationError(f"there is no data config {value}, neither a file nor a shipped one: {hint}")
        else:
            continue
        if path is not None and "=" in argv[position]:
            resolved[position] = f"--{name}={path}"
        elif path is not None:
            resolved[position + 1] = str(path)
    return resolved


def with_shipped_parts(config: Any, folder: Path = _HERE) -> Any:
    """Return what a config file holds, with ``data: voc`` and ``model: {detector: yolo_nas_s}`` made file names.

    Args:
        config: a run, or the ``model`` section of one.
        folder: of the file, where relative file names start.
    """
    if not isinstance(config, dict):
        return config
    for key in (*PARTS, "detector"):
        *parents, last = key.split(".")
        holder: Any = config
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        name = holder.get(last) if isinstance(holder, dict) else None
        part = "model.detector" if key == "detector" else key
        if isinstance(name, str) and (file := find_part(part, name, folder)):
            holder[last] = str(file)
    return config


def find_key(value: Any, key: str, folder: Path | None = None) -> bool:
    """Tell whether a config, or a file it names on the way, sets a dotted key such as ``model.class_names``.

    Args:
        value: the path of a config file, or what one holds.
        key: parts joined by dots; empty for the value itself.
        folder: where relative file names start.
    """
    folder = folder or Path()
    for part in key.split("."):
        if isinstance(value, (str, Path)) and str(value).endswith((".yaml", ".yml")) and (folder / value).is_file():
            file = folder / value
            value, folder = load_config(file), file.parent
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def load_config(file: Path) -> Any:
    """Return what a YAML file holds, with the files of the shipped configs that it names.

    Raises:
        ConfigurationError: it is no YAML.
    """
    try:
        return with_shipped_parts(yaml.safe_load(file.read_text(encoding="utf-8")), file.parent)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"config {file} is no text file: give a YAML file.") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigurationError(f"config {file} cannot be read{line}: {problem}.") from error
