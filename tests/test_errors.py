"""What messages are made of."""

from detlit.errors import abridged


def test_long_lists_are_abridged() -> None:
    assert abridged([]) == ""
    assert abridged("abcde") == "a, b, c, d, e"
    assert abridged(range(8), limit=2) == "0, 1 and 6 more"
