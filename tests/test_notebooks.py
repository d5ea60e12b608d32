"""The notebooks are short, clean and say what they answer; `pytest --nbmake notebooks` executes them."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str = "") -> list[dict[str, Any]]:
    """Return the cells of a kind, or all."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind or not kind]


def text_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_they_are_numbered_without_a_gap() -> None:
    assert [int(path.stem[:2]) for path in NOTEBOOKS] == list(range(1, len(NOTEBOOKS) + 1))


@each_notebook
def test_it_is_short_and_asks_its_question_first(path: Path) -> None:
    assert len(cells(path)) <= 15
    first = text_of(cells(path)[0])
    assert first.startswith("# ")
    assert re.search(r"^\*\*.*\?\*\*$", first, flags=re.MULTILINE)


@each_notebook
def test_it_has_no_outputs(path: Path) -> None:
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@each_notebook
def test_it_is_python_without_machine_paths(path: Path) -> None:
    for cell in cells(path, "code"):
        ast.parse(text_of(cell))
        assert not re.search(r"['\"]/(home|work|tmp|root|opt)\b", text_of(cell))


@each_notebook
def test_the_files_it_points_to_exist(path: Path) -> None:
    text = "\n".join(text_of(cell) for cell in cells(path))
    for name in re.findall(r"\"(\.\./[\w/.]+)\"|`(guides/[\w/.]+|[\w.]+\.ipynb)`", text):
        assert (path.parent / "".join(name)).exists(), name
