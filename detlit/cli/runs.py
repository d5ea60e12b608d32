"""Finding the checkpoints of earlier runs: what ``--ckpt_path last`` and ``--ckpt_path best`` mean."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detlit.cli.configs import flags, load_config
from detlit.errors import ConfigurationError

__all__ = ["newest_checkpoint", "with_named_checkpoints"]

NAMES = ("last", "best")


def with_named_checkpoints(argv: Sequence[str]) -> list[str]:
    """Return the arguments with ``--ckpt_path last`` or ``best`` replaced by the newest such file of the runs so far.

    Raises:
        ConfigurationError: there is none where the arguments put their runs.
    """
    resolved = list(argv)
    for position, name, value in flags(argv):
        if name == "ckpt_path" and value in NAMES:
            root = _setting(argv, "trainer.default_root_dir") or "runs"
            path = newest_checkpoint(value, root, _setting(argv, "checkpoint.dirpath"))
            if argv[position].startswith("--ckpt_path="):
                resolved[position] = f"--ckpt_path={path}"
            else:
                resolved[position + 1] = str(path)
    return resolved


def newest_checkpoint(name: str, root: str | Path, dirpath: str | Path | None = None) -> Path:
    """Return the newest ``NAME.ckpt`` of all runs in a folder.

    Args:
        name: ``"last"`` or ``"best"``.
        root: the folder of the runs, ``trainer.default_root_dir``.
        dirpath: the folder that ``checkpoint.dirpath`` chose instead.

    Raises:
        ConfigurationError: there is none.
    """
    if dirpath is not None:
        found = list(Path(dirpath).glob(f"{name}.ckpt"))
    else:
        places = (f"{name}.ckpt", f"checkpoints/{name}.ckpt", f"*/checkpoints/{name}.ckpt")
        found = [path for place in places for path in Path(root).glob(place)]
    if not found:
        raise ConfigurationError(
            f"--ckpt_path {name} means the newest {name}.ckpt in {dirpath or root}, and there is none: train first, "
            "leave --ckpt_path out, or give the path of a checkpoint."
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def _setting(argv: Sequence[str], key: str) -> str | None:
    """Return what flags and config files set a dotted key to; the last one wins, as in the parser."""
    value = None
    for _, name, given in flags(argv):
        if name == key:
            value = given
        elif name == "config" or key.startswith(f"{name}."):
            value = _inside(given, key if name == "config" else key.removeprefix(f"{name}."), Path()) or value
    return value


def _inside(value: Any, key: str, folder: Path) -> str | None:
    """Return the value of a dotted key in a config: a mapping, inline JSON, or a file, which may name further files."""
    for part in key.split("."):
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _json(value)
        if isinstance(value, str) and (folder / value).is_file():
            file = folder / value
            value, folder = load_config(file), file.parent
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return None if value is None else str(value)


def _json(text: str) -> Any:
    """Return what inline JSON says; the parser says what is wrong with it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
