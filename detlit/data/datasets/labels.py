"""Labels as people keep them, as numbers."""

from collections.abc import Mapping
from typing import Any

from detlit.errors import AnnotationError

__all__ = ["label_numbers"]


def label_numbers(labels: Any, label_of: Mapping[str, int], where: str) -> list[int]:
    """Return the labels of an image, each given by number from 0 or by name, as numbers.

    Args:
        labels: a list or an array, one per object.
        label_of: the number of each class name.
        where: the image, for messages.

    Raises:
        AnnotationError: they are no list, or one of them is neither the number nor the name of a class.
    """
    if isinstance(labels, str) or not hasattr(labels, "__len__") or getattr(labels, "ndim", 1) == 0:
        raise AnnotationError(f"{where} has labels {labels!r}: write a list, one label per box.")
    return [_number(label, label_of, where) for label in labels]


def _number(label: Any, label_of: Mapping[str, int], where: str) -> int:
    try:
        number = label_of.get(label, -1) if isinstance(label, str) else float(label)
    except (TypeError, ValueError):  # None, a list, an array
        number = -1
    if number % 1 or not 0 <= number < len(label_of):
        raise AnnotationError(
            f"{where} has label {label!r}, but the {len(label_of)} classes are {', '.join(label_of)}: write one of "
            f"these, or its number from 0 to {len(label_of) - 1}."
        )
    return int(number)
