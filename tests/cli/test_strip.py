"""What ``detlit strip`` leaves is enough to detect, fine-tune and validate, and too little to resume."""

from pathlib import Path

import pytest
import torch

from detlit import DetectionModule, Predictor
from detlit.models.checkpoints import load_weights
from tests.cli.test_lightning import run, write_config
from tests.tiny import tiny_detector


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert run("fit", "--config", write_config(folder), "--ema.decay=0.5") == 0
    return folder / "runs/version_0/checkpoints/last.ckpt"


@pytest.fixture
def stripped(trained: Path, tmp_path: Path) -> Path:
    path = tmp_path / "new folder" / "stripped.ckpt"
    assert run("strip", str(trained), str(path)) == 0
    return path


def test_it_holds_the_averaged_weights_and_the_entry_alone(
    trained: Path, stripped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, rest = (torch.load(path, weights_only=True) for path in (trained, stripped))
    assert set(rest) == {"state_dict", "detlit", "epoch", "global_step", "pytorch-lightning_version"}
    assert rest["detlit"] == whole["detlit"]
    assert all(torch.equal(value, whole["state_dict"][name]) for name, value in rest["state_dict"].items())
    assert any(not torch.equal(value, whole["current_model_state"][name]) for name, value in rest["state_dict"].items())
    assert stripped.stat().st_size < 0.6 * trained.stat().st_size  # of plain SGD, which keeps nothing
    assert [path.name for path in stripped.parent.iterdir()] == ["stripped.ckpt"]


def test_the_predictor_the_module_and_fine_tuning_read_it(trained: Path, stripped: Path) -> None:
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    scores = [DetectionModule.load_from_checkpoint(path).eval()(images)[0]["scores"] for path in (trained, stripped)]
    assert torch.equal(*scores)
    assert Predictor(stripped).class_names == Predictor(trained).class_names
    detector = tiny_detector(len(Predictor(trained).class_names))
    load_weights(detector, stripped)
    state = torch.load(stripped, weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[f"detector.{name}"]) for name, value in detector.state_dict().items())


def test_validate_takes_it_and_fit_refuses_to_resume_from_it(
    stripped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
    assert run("validate", "--ckpt_path", str(stripped), *quiet) == 0
    capsys.readouterr()
    assert run("fit", "--config", write_config(tmp_path), "--ckpt_path", str(stripped)) == 1
    assert "holds weights alone" in capsys.readouterr().err
    assert run("fit", "--config", write_config(tmp_path), f"--model.weights={stripped}") == 0


def test_it_writes_over_nothing(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("strip", str(trained), str(trained)) == 2
    assert "choose another name" in capsys.readouterr().err
