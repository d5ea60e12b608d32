"""Train the detector of the quantization and export tests: python tests/assets/make_shapes_detector.py, 15 minutes.

It writes shapes_detector.ckpt beside itself: the averaged weights in float16, and what rebuilds the detector.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from detlit.cli import main as detlit
from detlit.models.checkpoint_entry import read_checkpoint

HERE = Path(__file__).parent
KEPT = ("detlit", "epoch", "global_step", "pytorch-lightning_version")


def train(folder: Path) -> Path:
    """Train by the config beside this file and return the best checkpoint."""
    config = HERE / "shapes_detector.yaml"
    status = detlit(["fit", "--config", str(config), "--trainer.default_root_dir", str(folder)])
    if status:
        raise SystemExit(status)
    return next(folder.rglob("best.ckpt"))


def stripped(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what a detector is rebuilt from, without the state of its training."""
    state = {
        name: value.half() if value.is_floating_point() else value for name, value in checkpoint["state_dict"].items()
    }
    return {"state_dict": state, **{name: checkpoint[name] for name in KEPT}}


def main() -> None:
    """Train, or take a checkpoint, and write the small one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="strip this one instead of training")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.checkpoint or train(Path(folder))
        torch.save(stripped(read_checkpoint(source)), HERE / "shapes_detector.ckpt")


if __name__ == "__main__":
    main()
