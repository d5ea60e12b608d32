"""What a run folder says of its run: ``config.yaml`` and ``run.yaml``."""

import os
import platform
import shutil
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

__all__ = ["RunFolder", "kept_if_it_trains"]

_BEFORE_THE_FIRST_STEP = ("config*.yaml", "run.yaml", "metrics.csv", "events.out.tfevents.*")
"""Files of a run that has not trained yet."""


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
        self._folder = Path()
        self.stepped = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder on every rank (``log_dir`` broadcasts), then save on rank 0."""
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._folder = Path(trainer.log_dir or trainer.default_root_dir)
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the config unless the newest one says the same, and add an entry to ``run.yaml``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        text = self.parser.dump(self.config, skip_unset=False)
        file, number = self._folder / "config.yaml", 0
        while file.exists() and file.read_text() != text:
            number += 1
            file = self._folder / f"config_{number}.yaml"
        file.write_text(text)
        command = self.command.replace("\n", "\n    ")  # a block without escapes, so that it can be copied
        entry = yaml.safe_dump(
            describe_run(trainer, pl_module, self.config.get("ckpt_path")),
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=None,
            width=120,
        )
        with (self._folder / "run.yaml").open("a", encoding="utf-8") as runs:
            runs.write(f"- command: |-\n    {command}\n" + indent(entry, "  "))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Keep the folder from now on."""
        self.stepped = True


@contextmanager
def kept_if_it_trains(trainer: Trainer) -> Iterator[None]:
    """Remove the new folder of a run that fails before its first step, if it holds nothing but its description."""
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        stepped = any(isinstance(callback, RunFolder) and callback.stepped for callback in trainer.callbacks)  # type: ignore[attr-defined]
        files = [path for path in folder.rglob("*") if not path.is_dir()]
        worthless = all(any(path.match(pattern) for pattern in _BEFORE_THE_FIRST_STEP) for path in files)
        if trainer.is_global_zero and folder in created and worthless and not stepped:
            shutil.rmtree(folder, ignore_errors=True)
            for parent in created[1:]:
                with suppress(OSError):  # it holds something else by now
                    parent.rmdir()
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
