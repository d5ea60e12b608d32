"""Errors a user can act on: each message names the value, the cause and the cure, in one sentence.

The command line prints them as a single line and exits with status 1; scripts see ordinary exceptions.
"""

from collections.abc import Iterable

__all__ = [
    "AnnotationError",
    "CheckpointError",
    "ConfigurationError",
    "DatasetError",
    "DetlitError",
    "ExportError",
    "ImageReadError",
    "MissingDataError",
    "MissingExtraError",
    "TrainingError",
    "abridged",
]


class DetlitError(Exception):
    """Base of every error that bad input, not a bug, causes."""


class ConfigurationError(DetlitError, ValueError):
    """Arguments that contradict each other or the data."""


class DatasetError(DetlitError, ValueError):
    """A data set that cannot be used as a whole: missing, empty, or with other classes than declared."""


class MissingDataError(DatasetError):
    """A split of a data set, or the file or folder it is read from, that is not there."""


class AnnotationError(DatasetError):
    """An annotation file, or an entry in it, that cannot be understood."""


class ImageReadError(DetlitError, OSError):
    """An image file that is missing or cannot be decoded."""


class CheckpointError(DetlitError, ValueError):
    """A checkpoint that is damaged, foreign, or does not fit what it is loaded into."""


class MissingExtraError(DetlitError, ImportError):
    """A feature whose optional dependency is not installed."""


class ExportError(DetlitError, RuntimeError):
    """An exported file that does not compute what the detector does."""


class TrainingError(DetlitError, RuntimeError):
    """A run that cannot go on, such as one whose gradients are no longer finite."""


def abridged(values: Iterable[object], limit: int = 5) -> str:
    """Return the first of some values for a message: ``a, b, c and 7 more``."""
    texts = [str(value) for value in values]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if len(texts) > limit else "")
