"""The curves of a run in its folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from detlit import PlotMetrics
from detlit.callbacks import plot_metrics as home
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, assert_same, quiet_trainer, weights
from tests.test_module import make_trainer, shapes, shapes_module


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what is drawn, as (panels, path, title, best, ends of epochs), in place of drawing it."""
    calls: list[Any] = []
    monkeypatch.setattr(home, "draw_curves", lambda *call: calls.append(call))
    return calls


class Losses(Callback):
    """Take down the losses that were logged."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.values.append(float(trainer.callback_metrics["train/loss"]))


def test_a_picture_appears_in_the_run_folder_and_weights_do_not_change(tmp_path: Path) -> None:
    data = shapes()
    results = []
    for callbacks in ([], [PlotMetrics(formats=["png", "svg"], min_seconds=0)]):
        torch.manual_seed(0)
        module = shapes_module(data)
        make_trainer(tmp_path, callbacks=callbacks, max_epochs=2).fit(module, shapes())
        results.append(weights(module))
    assert_same(*results)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "curves.svg").read_text()


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_points_are_the_means_of_the_logged_losses(accumulate: int, drawn: list[Any], tmp_path: Path) -> None:
    losses = Losses()
    trainer = quiet_trainer(tmp_path, callbacks=[losses, PlotMetrics()], accumulate_grad_batches=accumulate)
    trainer.fit(TinyModule())
    points = drawn[-1][0]["loss"]["train/loss"]
    assert [step for step, _ in points] == list(range(1, 8 // accumulate + 1))
    means = torch.tensor(losses.values).reshape(-1, accumulate).mean(1)
    torch.testing.assert_close(torch.tensor([value for _, value in points]), means)


def test_scores_learning_rates_and_the_best_are_drawn(drawn: list[Any], tmp_path: Path) -> None:
    callback = PlotMetrics(min_seconds=0)
    quiet_trainer(tmp_path, callbacks=[callback], max_epochs=4).fit(TinyModule(scores=[0.4, -1.0, 0.6, 0.5]))
    panels, path, title, best, ends = drawn[-1]
    assert panels["score"]["val/map"] == [(8, pytest.approx(0.4)), (24, pytest.approx(0.6)), (32, 0.5)]
    assert set(panels["learning rate"]) == {"all parameters"}
    assert panels["learning rate"]["all parameters"][-1] == (32, 0.02)
    assert best == callback.best() == ("val/map", 24, best.value)
    assert best.value == pytest.approx(0.6)
    assert ends == [8, 16, 24, 32]
    assert path == tmp_path / "curves.png"
    assert title.endswith("4 of 4 epochs, step 32 · best val/map 0.6 at step 24")


def test_another_monitor_where_less_is_better(drawn: list[Any], tmp_path: Path) -> None:
    class Lossy(TinyModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log_dict({"val/loss": [3.0, 1.0, 2.0][self.current_epoch], "f1": 0.5, "other": 1.0})

    callback = PlotMetrics(metrics=["f1"], monitor="val/loss", mode="min")
    quiet_trainer(tmp_path, callbacks=[callback], max_epochs=3).fit(Lossy())
    panels, _, _, best, _ = drawn[-1]
    assert best[1:] == (16, 1.0)
    assert set(panels["score"]) == {"f1"}
    assert [value for _, value in panels["loss"]["val/loss"]] == [3.0, 1.0, 2.0]


def test_pictures_are_not_drawn_more_often_than_asked_but_at_the_end(drawn: list[Any], tmp_path: Path) -> None:
    counts = []
    for seconds in (0.0, 3600.0):
        drawn.clear()
        quiet_trainer(tmp_path, callbacks=[PlotMetrics(min_seconds=seconds)], max_epochs=3).fit(TinyModule())
        counts.append(len(drawn))
    assert counts == [7, 2]  # after each validation, each epoch, and the run; after the first validation and the run
    assert drawn[-1][4] == [8, 16, 24]


def test_an_interrupted_run_is_drawn(drawn: list[Any], tmp_path: Path) -> None:
    module = TinyModule()
    module.on_step = lambda: _interrupt(module)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        quiet_trainer(tmp_path, callbacks=[PlotMetrics(min_seconds=3600)], max_epochs=3).fit(module)
    assert len(drawn[-1][0]["loss"]["train/loss"]) == 13


def _interrupt(module: TinyModule) -> None:
    if module.global_step == 13:
        raise KeyboardInterrupt


def test_a_resumed_run_goes_on_with_its_curves(drawn: list[Any], tmp_path: Path) -> None:
    scores = [0.1, 0.3, 0.2]
    first = quiet_trainer(tmp_path, callbacks=[PlotMetrics()], max_epochs=2)
    first.fit(TinyModule(scores))
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed = quiet_trainer(tmp_path, callbacks=[PlotMetrics()], max_epochs=3)
    resumed.fit(TinyModule(scores), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    panels, _, _, best, ends = drawn[-1]
    whole = quiet_trainer(tmp_path, callbacks=[PlotMetrics()], max_epochs=3)
    whole.fit(TinyModule(scores))
    assert panels == drawn[-1][0]
    assert len(panels["loss"]["train/loss"]) == 24
    assert best == drawn[-1][3] == ("val/map", 16, pytest.approx(0.3))
    assert ends == drawn[-1][4] == [8, 16, 24]


def test_long_runs_have_means_of_neighbours(drawn: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "_MOST_POINTS", 4)
    losses = Losses()
    quiet_trainer(tmp_path, callbacks=[losses, PlotMetrics()], max_epochs=1).fit(TinyModule())
    points = drawn[-1][0]["loss"]["train/loss"]
    assert [step for step, _ in points] == [4, 8]
    torch.testing.assert_close(
        torch.tensor([value for _, value in points]), torch.tensor(losses.values).reshape(2, 4).mean(1)
    )
    assert [step for step, _ in drawn[-1][0]["learning rate"]["all parameters"]] == [4, 8]


def test_groups_of_the_same_rate_share_a_curve() -> None:
    same, other = [(1.0, 0.1)], [(1.0, 0.2)]
    assert home._different({"a": same, "b": other, "c": same}) == {"a, c": same, "b": other}


def test_a_smoke_test_draws_nothing(drawn: list[Any], tmp_path: Path) -> None:
    quiet_trainer(tmp_path, callbacks=[PlotMetrics()], fast_dev_run=True).fit(TinyModule())
    assert drawn == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"formats": ["gif"]}, "cannot be drawn: choose of 'png' and 'svg'"),
        ({"formats": []}, "cannot be drawn"),
        ({"mode": "best"}, "mode='best' is unknown"),
        ({"min_seconds": -1}, "min_seconds=-1 is negative"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        PlotMetrics(**arguments)
