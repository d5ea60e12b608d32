"""The torch-free front of the command line."""

import subprocess
import sys

import pytest

from detlit import __version__
from detlit.cli import COMMANDS, main


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after running ``code``."""
    program = f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"], ["fitt"]])
def test_help_version_and_typos_do_not_import_torch(arguments: list[str]) -> None:
    loaded = loaded_after(f"from detlit.cli import main; main({arguments})")
    assert "detlit" in loaded
    assert not loaded & {"torch", "lightning", "numpy", "cv2", "jsonargparse"}


def test_importing_detlit_is_free() -> None:
    """Nothing is loaded that a bare interpreter lacks; tests/benchmarks/startup.py measures the milliseconds."""
    assert loaded_after("import detlit") - loaded_after("import importlib, typing") == {"detlit"}


def test_predict_does_not_import_lightning() -> None:
    assert not loaded_after("import detlit.cli.predict") & {"lightning", "lightning_fabric", "albumentations"}


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"detlit {__version__}\n"


def test_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    err = capsys.readouterr().err
    assert "there is no command 'fitt'" in err
    assert "did you mean: fit?" in err
