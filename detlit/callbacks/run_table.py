"""One row for each run in a table of all runs."""

import csv
import fcntl
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import detlit
from detlit.errors import ConfigurationError

__all__ = ["RunTable", "append_row"]


class RunTable(Callback):
    """Append a row to a CSV table when training ends: what was trained, how good it became, how long it took.

    Columns: when the run ended and how, its folder, classes, images and batch size, optimizer and learning rate,
    precision, devices and seed, epochs, steps and seconds, the validation metrics of the best epoch, versions, and the
    command. A run with columns that the table does not have yet adds them; runs that end at the same time write one
    after another. It works on any LightningModule; what cannot be told is left empty.

    Args:
        path: of the table; ``None`` is ``runs.csv`` in ``trainer.default_root_dir``, beside the folders of the runs.
        columns: more columns, such as ``{"dataset": "bccd", "note": "larger images"}``; they come first.
        monitor: the logged metric that decides on the best epoch.
        mode: ``"max"`` where more is better.

    Raises:
        ConfigurationError: an unknown mode; when training starts, a file that is not such a table.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        columns: Mapping[str, str | float] | None = None,
        monitor: str = "val/map",
        mode: Literal["max", "min"] = "max",
    ) -> None:
        if mode not in ("max", "min"):
            raise ConfigurationError(f"RunTable mode={mode!r} is unknown: choose 'max' or 'min'.")
        self.path = path
        self.columns = dict(columns or {})
        self.monitor = monitor
        self.mode = mode
        self._folder = Path()
        self._started: float | None = None
        self._best: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder on every rank (``log_dir`` broadcasts), and refuse a wrong file before training."""
        if stage == "fit":
            self._folder = Path(trainer.log_dir or trainer.default_root_dir)
            self._started, self._best = None, {}
            if trainer.is_global_zero:
                _read(self._table(trainer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the metrics if they are the best."""
        if trainer.sanity_checking or self._started is None:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val")}
        new, old = values.get(self.monitor), self._best.get(self.monitor)
        better = new is not None and (old is None or (new > old if self.mode == "max" else new < old))
        if better or old is None:
            self._best = {"best epoch": trainer.current_epoch, "best step": trainer.global_step, **values}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row."""
        self._write(trainer, pl_module, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the row of a run that was stopped or failed."""
        stopped = isinstance(exception, (KeyboardInterrupt, SystemExit))
        self._write(trainer, pl_module, "stopped" if stopped else f"failed: {type(exception).__name__}")

    def _table(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "runs.csv" if self.path is None else Path(self.path)

    def _write(self, trainer: Trainer, pl_module: LightningModule, status: str) -> None:
        if self._started is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        seconds = round(time.monotonic() - self._started, 1)
        self._started = None
        row = {
            **self.columns,
            "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "status": status,
            "folder": str(self._folder),
            **_settings(trainer, pl_module),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": seconds,
            **{name: round(value, 5) for name, value in self._best.items()},
            **_versions(),
            "command": " ".join(sys.argv),
        }
        append_row(self._table(trainer), row)


def append_row(path: str | Path, row: Mapping[str, Any]) -> None:
    """Append a row to a CSV table with a header.

    A column that the table does not have is added at the end of its header, empty in earlier rows; one that the row
    does not have stays empty. Processes that append at the same time wait for each other, and a reader sees the table
    before or after a change of its header, never between.

    Raises:
        ConfigurationError: the file is not such a table.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        header, rows = _read(path)
        columns = [*header, *(name for name in row if name not in header)]
        if header and columns == header:
            complete = path.read_bytes().endswith(b"\n")
            with path.open("a", newline="", encoding="utf-8") as file:
                file.write("" if complete else "\n")
                csv.DictWriter(file, columns, lineterminator="\n").writerow(row)
            return
        unfinished = path.with_name(f".{path.name}.part")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows([*rows, dict(row)])
        unfinished.replace(path)


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the header and the rows of a table, nothing where there is no file."""
    if not path.exists() or path.stat().st_size == 0:
        return [], []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read as a table of runs ({error}): choose another path.") from error
    wrong = next((number for number, line in enumerate(lines) if len(line) != len(header)), None)
    if wrong is not None or len(set(header)) < len(header):
        reason = f"row {wrong + 2} has {len(lines[wrong])} values" if wrong is not None else "a column is there twice"
        raise ConfigurationError(
            f"{path} is no table of runs, its header has {len(header)} columns and {reason}: choose another path, or "
            "correct it."
        )
    return header, [dict(zip(header, line, strict=True)) for line in lines]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which leaves no file behind and outlives the replacement of files in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _settings(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Return what distinguishes runs, as far as trainer, module and data module say it."""
    data, detector = getattr(trainer, "datamodule", None), getattr(pl_module, "detector", pl_module)
    train: Any = getattr(trainer.train_dataloader, "dataset", None)
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    classes: Any = getattr(pl_module, "class_names", None)
    size = getattr(getattr(data, "preprocessing", None), "size", None)
    return {
        "module": type(pl_module).__name__,
        "backbone": type(getattr(detector, "backbone", detector)).__name__,
        "parameters": sum(parameter.numel() for parameter in detector.parameters()),
        "classes": "" if classes is None else len(classes),
        "train images": len(train) if hasattr(train, "__len__") else "",
        "image size": "" if size is None else f"{size[0]}x{size[1]}",
        "batch size": getattr(data, "batch_size", getattr(trainer.train_dataloader, "batch_size", "")),
        "accumulate": trainer.accumulate_grad_batches,
        "optimizer": ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers),
        "learning rate": max((float(group.get("initial_lr", group["lr"])) for group in groups), default=""),
        "weight decay": max((float(group.get("weight_decay", 0.0)) for group in groups), default=""),
        "precision": trainer.precision,
        "devices": f"{trainer.world_size} {trainer.strategy.root_device.type}",
        "seed": os.environ.get("PL_GLOBAL_SEED", ""),
    }


def _versions() -> dict[str, str]:
    return {
        "detlit": detlit.__version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }
