"""Who may import whom: lower layers never import higher ones, and only the Lightning layer imports Lightning."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import detlit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest needs there

PACKAGE = Path(detlit.__file__).parent

FOR_EVERYONE = {"", "structures", "errors", "spec"}
"""Modules that everyone may import; "" is detlit itself, for its version."""

MAY_IMPORT = {
    "__init__": {"*"},
    "__main__": {"cli"},
    "cli": {"*"},
    "module": {"models", "losses", "postprocess", "metrics", "optim", "ops", "quantization", "checkpoint_io"},
    "callbacks": {"metrics", "quantization", "export", "optim", "reports", "checkpoint_io"},
    "predictor": {"models", "postprocess", "ops", "data", "quantization", "export", "prediction"},
    "prediction": {"models", "postprocess", "ops", "data", "quantization", "export", "reports"},
    "export": {"models", "postprocess", "ops", "data", "quantization"},
    "quantization": {"models", "postprocess", "ops", "data"},
    "losses": {"assigners", "ops"},
    "models": {"ops"},
    "assigners": {"ops"},
    "postprocess": {"ops"},
    "data": {"ops"},
    "metrics": {"ops"},
    "reports": {"metrics", "ops"},
    "ops": set(),
    "optim": set(),
    "checkpoint_io": {"models"},
    "structures": set(),
    "errors": set(),
    "spec": set(),
}
"""What a part of detlit may import besides itself, and besides what everyone may."""

LIGHTNING = {
    *("cli/lightning.py", "cli/trainer.py", "cli/console.py", "cli/run_folder.py"),
    *("module.py", "checkpoint_io.py", "data/datamodule.py", "callbacks/"),
}
"""Files and folders that may import Lightning; everything else is plain PyTorch and fits any pipeline."""

LIGHT = ["__init__.py", "__main__.py", "cli/__init__.py", "errors.py"]
"""Files that ``detlit --help`` reads: at the top they import the standard library alone."""

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports_in(tree: ast.AST, package: str = "detlit", *, functions: bool = True) -> Iterator[str]:
    """Yield the dotted names that a file imports when it runs, so not those for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: imports are absolute here"
            assert node.module is not None
            if node.module == package:
                yield from (f"{package}.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports_in(node, package, functions=functions)


def imported_by(file: str, *, functions: bool = True) -> set[str]:
    return set(imports_in(ast.parse((PACKAGE / file).read_text(encoding="utf-8")), functions=functions))


def part_of(name: str) -> str:
    """Return the part of detlit a dotted name belongs to, "" for what ``detlit/__init__.py`` itself defines."""
    part = name.removeprefix("detlit").removeprefix(".").split(".")[0]
    return part if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file() else ""


@pytest.mark.parametrize("file", FILES)
def test_imports_go_downwards(file: str) -> None:
    part = file.split("/")[0].removesuffix(".py")
    allowed = MAY_IMPORT[part] | FOR_EVERYONE | {part}
    imported = {part_of(name) for name in imported_by(file) if name.split(".")[0] == "detlit"}
    assert "*" in allowed or imported <= allowed


@pytest.mark.parametrize("part", ["predictor.py", "prediction", "export", "quantization"])
def test_of_data_only_the_transforms_and_readers_are_used_without_a_trainer(part: str) -> None:
    files = [file for file in FILES if file.split("/")[0] == part]
    from_data = {name for file in files for name in imported_by(file) if name.startswith("detlit.data")}
    assert not {name for name in from_data if re.fullmatch(r"detlit\.data(\.datamodule|\.datasets.*)?", name)}


@pytest.mark.parametrize("file", FILES)
def test_only_the_lightning_layer_imports_lightning(file: str) -> None:
    if not any(file == place or (place.endswith("/") and file.startswith(place)) for place in LIGHTNING):
        assert not {
            name for name in imported_by(file) if name.split(".")[0].startswith(("lightning", "pytorch_lightning"))
        }


@pytest.mark.parametrize("file", LIGHT)
def test_the_front_of_the_command_line_imports_the_standard_library_alone(file: str) -> None:
    roots = {name.split(".")[0] for name in imported_by(file, functions=False)}
    assert roots <= sys.stdlib_module_names | {"detlit"}


def test_every_package_that_is_imported_is_a_dependency() -> None:
    roots = {name.split(".")[0] for file in FILES for name in imported_by(file)}
    third_party = roots - sys.stdlib_module_names - {"detlit"}
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    requirements = sum(project["optional-dependencies"].values(), project["dependencies"])
    declared = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requirements}
    providers = packages_distributions()
    undeclared = {
        root for root in third_party if not declared & {provider.lower() for provider in providers.get(root, [root])}
    }
    assert not undeclared
