import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from detlit.callbacks import StepTimer
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, quiet_trainer


class Slow(TinyModule):
    """Takes 20 ms for the forward pass, 30 ms for the optimizer, and validates for half a second."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        time.sleep(0.02)
        return super().training_step(batch, batch_idx)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        time.sleep(0.03)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        time.sleep(0.06)

    def on_train_batch_end(self, *args: Any) -> None:
        self.logged = {**getattr(self, "logged", {}), self.global_step: dict(self.trainer.logged_metrics)}


@pytest.mark.parametrize("synchronize", [False, True])
def test_the_parts_of_a_step_are_told_apart_and_validation_is_none(tmp_path: Path, synchronize: bool) -> None:
    trainer = quiet_trainer(
        tmp_path,
        callbacks=[StepTimer(every_n_steps=8, synchronize=synchronize)],
        enable_checkpointing=False,
        max_epochs=2,
        log_every_n_steps=1,
    )
    trainer.fit(Slow())
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert 0.02 <= logged["time/forward"] < 0.03 + logged["time/data"] + 0.03
    assert logged["time/optimizer"] >= 0.03
    assert logged["time/backward"] < 0.02
    total = sum(logged[f"time/{part}"] for part in ("data", "forward", "backward", "optimizer"))
    assert logged["time/images_per_second"] == pytest.approx(2 / total, rel=1e-3)
    assert logged["time/data"] < 0.06  # not the half second of validation shared by eight batches
    assert "time/images_per_second" in trainer.progress_bar_metrics


@pytest.mark.parametrize(("every", "entries"), [(1, 8), (4, 2), (9, 0)])
def test_it_logs_every_so_many_steps(tmp_path: Path, every: int, entries: int, monkeypatch: Any) -> None:
    seen = []
    module = TinyModule()
    monkeypatch.setattr(module, "log_dict", lambda values, **_: seen.append(values))
    trainer = quiet_trainer(tmp_path, callbacks=[StepTimer(every_n_steps=every)], enable_checkpointing=False)
    trainer.fit(module)
    assert len(seen) == entries


def test_no_interval_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="every_n_steps=0 is too small"):
        StepTimer(every_n_steps=0)
