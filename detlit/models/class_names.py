"""Names of classes that nobody named."""

from collections.abc import Sequence

__all__ = ["known_names", "placeholder_names"]


def placeholder_names(num_classes: int) -> tuple[str, ...]:
    """Return ``class_0``, ``class_1``, ..., the names of classes that nobody named."""
    return tuple(f"class_{label}" for label in range(num_classes))


def known_names(names: Sequence[str] | None) -> Sequence[str] | None:
    """Return class names, or ``None`` in place of placeholders, which say nothing."""
    return None if names is None or tuple(names) == placeholder_names(len(names)) else names
