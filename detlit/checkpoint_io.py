"""Writing and reading checkpoints through the Trainer."""

import os
import pickle
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from detlit.errors import CheckpointError
from detlit.models.torch_files import damaged, write_torch_file

__all__ = ["AtomicCheckpointIO"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its target and rename it: whatever happens, the target is whole, the old or the new.

    Lightning writes to the temporary folder and moves the file, which copies where that is another file system, and
    holds the whole file in memory. Remote paths (``s3://...``) stay Lightning's.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save a checkpoint; a killed process leaves at most ``NAME.part``, which the next save overwrites."""
        if "://" in os.fspath(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        write_torch_file(checkpoint, path)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Load a checkpoint.

        Raises:
            CheckpointError: the file is cut short or damaged; the sentence names the newest whole one beside it.
        """
        arguments: dict[str, Any] = {} if weights_only is None else {"weights_only": weights_only}
        try:
            return super().load_checkpoint(path, map_location, **arguments)
        except (FileNotFoundError, pickle.UnpicklingError):  # which say what is the matter
            raise
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            if "://" in os.fspath(path):
                raise
            raise CheckpointError(damaged(path)) from error
