"""What a run folder says of its run: ``config.yaml`` and ``run.yaml``."""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from textwrap import indent
from typing import Any

import cv2
import lightning
import numpy as np
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

import detlit

__all__ = ["RunFolder", "without_empty_folder"]


class RunFolder(SaveConfigCallback):
    """Write what was run into the folder of a ``fit``.

    ``config.yaml`` is never written over an earlier one: config.yaml, config_1.yaml, ... ``run.yaml`` has an entry for
    each run in the folder: when and how it was started, the classes, the device and the versions.

    Args:
        *args: as in Lightning.
        command: the command line as typed.
        **kwargs: as in Lightning.
    """

    def __init__(self, *args: Any, command: str, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})
        self.command = command
        self._folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, on every rank, as ``log_dir`` broadcasts; nothing is saved yet."""
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, now that the run has come as far as to train."""
        if self._folder is not None and trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the config unless the newest one says the same, and add an entry to ``run.yaml``."""
        folder = self._folder or Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = self.parser.dump(self.config, skip_unset=False)
        file, number = folder / "config.yaml", 0
        while file.exists() and file.read_text() != text:
            number += 1
            file = folder / f"config_{number}.yaml"
        file.write_text(text)
        entry = yaml.safe_dump(
            describe_run(trainer, pl_module, self.config.get("ckpt_path")),
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=None,
            width=120,
        )
        with (folder / "run.yaml").open("a", encoding="utf-8") as runs:
            runs.write(f"- {indent(_command(self.command) + entry, '  ', lambda line: True).strip()}\n")


def _command(command: str) -> str:
    """Return the entry of the command, a block without escapes, so that it can be copied, unless YAML needs escapes."""
    if command.replace("\n", "").isprintable():
        return "command: |-\n" + indent(command, "  ", lambda line: True) + "\n"
    return yaml.safe_dump({"command": command})


@contextmanager
def without_empty_folder(trainer: Trainer) -> Iterator[None]:
    """Remove the new folder of a run that fails before it trains.

    By then there is nothing in it but an event file that TensorBoard opens; a folder with anything else stays.
    """
    log_dir = trainer.log_dir if trainer.loggers and not trainer.fast_dev_run else None  # type: ignore[attr-defined]
    folder = Path(log_dir or ".")
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        if trainer.is_global_zero and folder in new and folder.is_dir():
            files = list(folder.iterdir())
            if all(file.match(f"events.out.tfevents.*.{os.getpid()}.*") for file in files):
                for file in files:
                    file.unlink()
                with suppress(OSError):  # somebody has put something there by now
                    for path in new:
                        path.rmdir()
        raise


def describe_run(trainer: Trainer, pl_module: LightningModule, checkpoint: str | None = None) -> dict[str, Any]:
    """Return what one needs to know to run it again, as plain data; what cannot be told is left out."""
    device = trainer.strategy.root_device
    versions = {
        "detlit": detlit.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "lightning": lightning.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
    entry = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "directory": str(Path.cwd()),
        "commit": _commit(),
        "resumed_from": None if checkpoint is None else str(checkpoint),
        "devices": f"{trainer.world_size} x {_name(device)}",
        "versions": {name: version for name, version in versions.items() if version is not None},
        "class_names": list(getattr(pl_module, "class_names", None) or ()),
    }
    return {key: value for key, value in entry.items() if value}


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _commit() -> str | None:
    """Return the git commit of the working directory, with ``-dirty`` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
