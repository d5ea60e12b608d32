import math
from pathlib import Path
from typing import Any

import pytest

from detlit.callbacks import Checkpoint, DetectionEarlyStopping
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, quiet_trainer


def epochs_trained(folder: Path, scores: list[float], ckpt_path: Path | None = None, **arguments: Any) -> int:
    """Return how many epochs a run that validates to these scores trains."""
    stop = DetectionEarlyStopping(**arguments)
    callbacks = [stop, *Checkpoint(dirpath=folder).callbacks()]
    trainer = quiet_trainer(folder, callbacks=callbacks, max_epochs=len(scores))
    trainer.fit(TinyModule(scores), ckpt_path=ckpt_path)
    return trainer.current_epoch


@pytest.mark.parametrize(
    ("arguments", "scores", "epochs"),
    [
        ({"patience": 2}, [0.1, 0.3, 0.2, 0.2, 0.9, 0.9], 4),
        ({"patience": 3}, [0.1, 0.3, 0.2, 0.2, 0.9, 0.9], 6),
        ({"patience": 2, "min_delta": 0.1}, [0.1, 0.15, 0.19, 0.9], 3),
        ({"patience": 2}, [0.1, 0.15, 0.19, 0.9], 4),
        ({"mode": "min", "patience": 2}, [0.3, 0.4, 0.5, 0.1], 3),
        ({"threshold": 0.5}, [0.1, 0.6, 0.7], 2),
        ({"threshold": 0.5, "min_epochs": 3}, [0.1, 0.6, 0.7, 0.8], 3),
        ({"patience": 2, "min_epochs": 4}, [0.3, 0.2, 0.2, 0.2, 0.2, 0.2], 5),
        ({}, [0.1, math.nan, 0.3], 2),
        ({"min_epochs": 3}, [0.1, math.nan, 0.3], 2),
        ({"check_finite": False}, [0.1, math.nan, 0.3], 3),
        ({}, [0.3] * 22, 21),
    ],
)
def test_it_stops_in_time(tmp_path: Path, arguments: dict[str, Any], scores: list[float], epochs: int) -> None:
    assert epochs_trained(tmp_path, scores, **arguments) == epochs


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    assert epochs_trained(tmp_path, [0.3, 0.2], patience=3) == 2
    assert epochs_trained(tmp_path, [0.3, 0.2, 0.2, 0.2, 0.2], tmp_path / "last.ckpt", patience=3) == 4


def test_a_metric_of_training_is_looked_at_after_epochs(tmp_path: Path) -> None:
    assert epochs_trained(tmp_path, [0.1] * 4, monitor="train/loss", mode="min", threshold=1e6) == 1


@pytest.mark.parametrize("sanity_steps", [0, 1])
def test_a_misspelt_metric_is_an_error_that_lists_the_metrics(tmp_path: Path, sanity_steps: int) -> None:
    trainer = quiet_trainer(
        tmp_path, callbacks=[DetectionEarlyStopping("val/mAP")], max_epochs=2, num_sanity_val_steps=sanity_steps
    )
    with pytest.raises(ConfigurationError, match=r"looks at val/mAP, which is not logged: choose one of .*val/map"):
        trainer.fit(TinyModule([0.1, 0.2]))
    assert trainer.global_step == (0 if sanity_steps else 8)


def test_no_patience_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="patience=0 would stop a run that improves"):
        DetectionEarlyStopping(patience=0)
