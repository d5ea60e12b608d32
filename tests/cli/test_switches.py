"""Options without a value."""

import pytest

from detlit.cli.switches import with_switches


@pytest.mark.parametrize(
    ("given", "complete"),
    [
        (["--verify"], ["--verify", "true"]),
        (["--verify", "--half", "--output", "x"], ["--verify", "true", "--half", "true", "--output", "x"]),
        (["--verify", "false", "--half=true"], ["--verify", "false", "--half=true"]),
        (["--output", "verify"], ["--output", "verify"]),
    ],
)
def test_a_named_switch_is_true(given: list[str], complete: list[str]) -> None:
    assert with_switches(given, ("verify", "half")) == complete
