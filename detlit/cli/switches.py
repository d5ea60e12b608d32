"""Options that are true when they are named."""

from collections.abc import Collection, Sequence

__all__ = ["with_switches"]


def with_switches(arguments: Sequence[str], names: Collection[str]) -> list[str]:
    """Return the arguments with ``true`` behind each of the named options that has no value: ``--verify``.

    Args:
        arguments: of the command line.
        names: of the options, without dashes.
    """
    complete: list[str] = []
    for position, argument in enumerate(arguments):
        complete.append(argument)
        following = arguments[position + 1 : position + 2]
        if argument.removeprefix("--") in names and argument.startswith("--"):
            complete += [] if following and not following[0].startswith("--") else ["true"]
    return complete
