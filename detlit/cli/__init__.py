"""The ``detlit`` command. This file imports no torch, so that help and typos answer at once."""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from detlit import __version__

__all__ = ["main"]

TRAINER_COMMANDS = {
    "fit": "train a detector from a config",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
}
LIGHT_COMMANDS = {
    "check-data": "find what is wrong with a data set",
    "evaluate": "score the predictions of any tool, in COCO's results format",
    "predict": "detect objects in images, videos and cameras",
    "export": "make a file for ONNX Runtime, OpenVINO or TensorRT from a checkpoint",
    "benchmark": "measure how fast a checkpoint, an exported file or an architecture is here",
    "convert": "make a checkpoint from weights of SuperGradients",
    "quantize": "make a checkpoint, and an ONNX file, that compute with 8-bit integers",
    "models": "list the detectors with their sizes",
    "strip": "keep the weights of a checkpoint, drop what only resuming needs",
    "completion": "print a script that completes these commands in bash, zsh or fish",
    "schema": "print a JSON schema with which editors complete and check configs",
}
COMMANDS = {**TRAINER_COMMANDS, **LIGHT_COMMANDS}

HELP = f"""\
usage: detlit COMMAND [options]

Train, validate and use object detectors on PyTorch Lightning.

commands:
{chr(10).join(f"  {name:10} {what}" for name, what in COMMANDS.items())}

  detlit COMMAND --help            options of a command
  detlit --version                 version of detlit

start here:
  detlit fit --config quickstart   train a small detector on generated images, no download
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 bad data, 2 bad usage or settings.

    Args:
        argv: the arguments after ``detlit``; ``None`` takes those of the process. With several devices leave it
            ``None``: Lightning starts the other ranks with the arguments of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        print(f"detlit {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        return _unknown_command(arguments[0])
    return _run(arguments)


def module_of(command: str) -> str:
    """Return the module whose ``main`` runs a command."""
    return f"detlit.cli.{'lightning' if command in TRAINER_COMMANDS else command.replace('-', '_')}"


def _run(arguments: list[str]) -> int:
    """Run a known command; errors that a user can act on become one line."""
    from detlit.cli.messages import one_line
    from detlit.errors import ConfigurationError, DetlitError

    try:
        import_module(module_of(arguments[0])).main(arguments)
    except (DetlitError, OSError) as error:
        print(f"detlit: error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print_as_line = type(error).__name__ == "MisconfigurationException"  # Lightning's, which is not imported here
        if not print_as_line and "does not fit into memory" not in str(error):
            raise
        print(f"detlit: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _unknown_command(name: str) -> int:
    print(f"detlit: error: there is no command {name!r}", file=sys.stderr)
    for near in difflib.get_close_matches(name, COMMANDS, 1):
        print(f"  did you mean: {near}?", file=sys.stderr)
    print("  see: detlit --help", file=sys.stderr)
    return 2
