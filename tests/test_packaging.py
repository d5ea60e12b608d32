"""What is in the wheel and the source distribution, and what the workflows do with them."""

import subprocess
import sys
import tarfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml

import detlit

ROOT = Path(detlit.__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
LARGEST_WHEEL = 600_000
"""Bytes: the sources alone, compressed file by file; weights, pictures and test data do not slip in."""

SMOKE = "detlit fit --config quickstart --trainer.fast_dev_run true"

in_a_clone = pytest.mark.skipif(not WORKFLOWS.is_dir(), reason="the source distribution has no workflows")


def build(source: Path, folder: Path) -> Path:
    """Build both distributions of a source tree and return the wheel."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=source, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="pip install hatchling to build the wheel")
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("detlit is installed without its source tree")
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def sources(folder: Path, suffixes: set[str]) -> set[str]:
    """Return the files of a folder that belong into a distribution, relative to it."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in files if path.suffix in suffixes}


def names_in(wheel: Path) -> set[str]:
    """Return the files of a wheel besides those that describe it."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def metadata_of(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_the_package_and_its_configs_and_nothing_else(wheel: Path) -> None:
    package = {f"detlit/{name}" for name in sources(ROOT / "detlit", {".py", ".typed"})}
    configs = {f"detlit/configs/{name}" for name in sources(ROOT / "configs", {".yaml"})}
    assert {"detlit/py.typed", "detlit/configs/quickstart.yaml"} <= package | configs
    assert names_in(wheel) == package | configs


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Version"] == detlit.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert not [line for line in needed if line.startswith("opencv-python>")]  # it would need libGL
    with ZipFile(wheel) as archive:
        licence, entry_points = (
            next(archive.read(name).decode() for name in archive.namelist() if name.endswith(ending))
            for ending in ("licenses/LICENSE", "entry_points.txt")
        )
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "detlit = detlit.cli:main" in entry_points


def test_the_source_distribution_builds_the_same_wheel_and_holds_the_tests(wheel: Path, tmp_path: Path) -> None:
    (archive,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert build(unpacked, tmp_path / "dist").read_bytes() == wheel.read_bytes()
    assert sources(ROOT / "tests", {".py"}) == sources(unpacked / "tests", {".py"})
    assert {"LICENSE", "README.md", "pyproject.toml"} <= {path.name for path in unpacked.iterdir()}


# ------------------------------------------------------------------------------------------------------- workflows
def workflow(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text(encoding="utf-8"))
    return content


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


@in_a_clone
@pytest.mark.parametrize("name", sorted(path.stem for path in WORKFLOWS.glob("*.yml")))
def test_every_job_has_an_end_and_pinned_actions(name: str) -> None:
    content = workflow(name)
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert job["timeout-minutes"] <= 180
        for step in job["steps"]:
            assert "run" in step or "@v" in step["uses"] or step["uses"] == "pypa/gh-action-pypi-publish@release/v1"


@in_a_clone
def test_a_release_is_published_only_after_it_trained_in_a_bare_container() -> None:
    jobs = workflow("release")["jobs"]
    assert [(name, job.get("needs")) for name, job in jobs.items()] == [
        ("build", None),
        ("smoke", "build"),
        ("publish", "smoke"),
        ("notes", "publish"),
    ]
    assert jobs["smoke"]["container"] == "python:3.11-slim"
    assert SMOKE in commands(jobs["smoke"])
    assert SMOKE in commands(workflow("tests")["jobs"]["wheel"])
    assert "--notes-file notes.md" in commands(jobs["notes"])
    tokens = {name: set(job.get("permissions", {})) for name, job in jobs.items() if "permissions" in job}
    assert tokens == {"publish": {"id-token"}, "notes": {"contents"}}


@in_a_clone
def test_every_python_that_is_promised_is_tested(wheel: Path) -> None:
    prefix = "Programming Language :: Python :: "
    promised = [line.removeprefix(prefix) for line in metadata_of(wheel).get_all("Classifier") or [] if prefix in line]
    for name, job in (("tests", "tests"), ("nightly", "everything")):
        assert workflow(name)["jobs"][job]["strategy"]["matrix"]["python"] == promised
    nightly = commands(workflow("nightly")["jobs"]["everything"])
    assert '-m "not distributed"' in nightly
    assert "-m distributed" in nightly
    for oldest in (nightly, commands(workflow("tests")["jobs"]["minimum-versions"])):
        assert "-c .github/minimum-requirements.txt" in oldest
