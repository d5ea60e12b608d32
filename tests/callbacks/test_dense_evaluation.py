from pathlib import Path
from typing import Any

import pytest

from detlit.callbacks import Checkpoint, DenseEvaluation
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, quiet_trainer


class Validated(TinyModule):
    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    def on_validation_epoch_end(self) -> None:
        self.epochs.append(self.current_epoch)


def fit(folder: Path, callback: DenseEvaluation, ckpt_path: Path | None = None, epochs: int = 8) -> list[int]:
    module = Validated()
    trainer = quiet_trainer(folder, callbacks=[callback, *Checkpoint(dirpath=folder).callbacks()], max_epochs=epochs)
    trainer.fit(module, ckpt_path=ckpt_path)
    return module.epochs


@pytest.mark.parametrize(
    ("arguments", "epochs"),
    [
        ({"every_n_epochs": 3, "last_n_epochs": 2}, [2, 5, 6, 7]),
        ({"every_n_epochs": 3, "last_n_epochs": 4}, [2, 4, 5, 6, 7]),
        ({"every_n_epochs": 5, "last_n_epochs": 4, "every_n_epochs_then": 2}, [5, 7]),
        ({"every_n_epochs": 3, "last_n_epochs": 1, "every_n_epochs_then": 3}, [2, 5, 7]),
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_validation_gets_denser(tmp_path: Path, arguments: dict[str, Any], epochs: list[int]) -> None:
    assert fit(tmp_path, DenseEvaluation(**arguments)) == epochs


def test_bad_arguments_and_runs_without_an_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="every_n_epochs=0 is too small"):
        DenseEvaluation(every_n_epochs=0)
    with pytest.raises(ConfigurationError, match=r"last_n_epochs=50 counts from the end, .*: set trainer\.max_epochs"):
        fit(tmp_path, DenseEvaluation(), epochs=-1)
