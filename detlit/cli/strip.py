"""``detlit strip``: a checkpoint of the weights alone, to keep or to give away; without Lightning."""

from collections.abc import Sequence
from pathlib import Path

from detlit.cli.messages import FriendlyErrors
from detlit.errors import ConfigurationError
from detlit.models.checkpoint_entry import read_checkpoint
from detlit.models.torch_files import write_torch_file

__all__ = ["main", "strip"]

_KEPT = ("state_dict", "detlit", "epoch", "global_step", "pytorch-lightning_version")


def main(argv: Sequence[str]) -> None:
    """Run ``detlit strip``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(
        prog="detlit strip",
        allow_abbrev=False,
        description="Keep of a checkpoint what detecting, fine-tuning and export need.",
    )
    parser.add_function_arguments(strip, as_positional=True)
    strip(**parser.parse_args(list(argv[1:])).as_dict())


def strip(source: str, output: str) -> None:
    """Write the weights of a checkpoint, averaged ones if an EMA ran, with all that describes the detector.

    Args:
        source: Checkpoint of a training run.
        output: Checkpoint to write; training cannot be resumed from it, only started anew with --model.weights.
    """
    if Path(output).exists():
        raise ConfigurationError(f"there is a file {output} already: choose another name.")
    checkpoint = read_checkpoint(source)
    stripped = {name: checkpoint[name] for name in _KEPT if name in checkpoint}
    write_torch_file(stripped, output)
    before, after = (Path(path).stat().st_size / 1e6 for path in (source, output))
    averaged = "averaged weights" if "current_model_state" in checkpoint else "weights"
    print(f"written to {output}: {averaged} of epoch {checkpoint.get('epoch', 0)}, {after:.1f} of {before:.1f} MB")
