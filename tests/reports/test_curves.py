"""The curves of a run."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from detlit.reports import curves as module
from detlit.reports.curves import Best, draw_curves

LOSS = [(float(step), 3.0 / (step + 1)) for step in range(10)]


def drawn(path: Path, **arguments: object) -> str:
    """Return the SVG of a small picture, whose letters stay text."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw_curves({"loss": {"train/loss": LOSS}, "score": {"val/map": [(5.0, 0.25), (9.0, 0.5)]}}, path, **arguments)  # type: ignore[arg-type]
    return path.read_text()


def test_title_units_legend_and_the_best_are_written(tmp_path: Path) -> None:
    text = drawn(tmp_path / "curves.svg", title="run 7", best=Best("val/map", 9, 0.5))
    for words in ("run 7", "optimizer steps", "train/loss", "val/map", "best 0.5", "step 9", ">loss<", ">score<"):
        assert words in text
    assert "best" not in drawn(tmp_path / "curves.svg", title="run 7")
    assert "best" not in drawn(tmp_path / "curves.svg", title="run 7", best=Best("val/map_75", 9, 0.5))


def test_a_panel_without_points_says_so(tmp_path: Path) -> None:
    draw_curves({"loss": {"train/loss": []}}, tmp_path / "curves.svg", "run")
    assert "matplotlib.axis" in (tmp_path / "curves.svg").read_text()


def test_values_that_are_not_finite_interrupt_the_line(tmp_path: Path) -> None:
    values = [(0.0, 1.0), (1.0, float("nan")), (2.0, float("inf")), (3.0, 1.0)]
    draw_curves({"loss": {"train/loss": values}}, tmp_path / "curves.png", "run")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture is not None
    assert picture.shape[1] > 400


def test_a_picture_replaces_the_last_one_whole(tmp_path: Path) -> None:
    drawn(tmp_path / "curves.svg", title="first")
    drawn(tmp_path / "curves.svg", title="second")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.svg"]
    with pytest.raises(ValueError, match="not supported"):
        draw_curves({"loss": {}}, tmp_path / "curves.nothing", "third")
    assert "second" in (tmp_path / "curves.svg").read_text()


def test_epochs_are_marked_if_they_are_few(tmp_path: Path) -> None:
    def lines(**arguments: object) -> int:
        return drawn(tmp_path / "curves.svg", title="run", **arguments).count("stroke-opacity: 0.08")

    assert lines(epoch_ends=[3, 6, 9]) == 2 * 3  # in both panels
    assert lines(epoch_ends=list(range(31))) == lines() == 0


def test_the_moving_average_of_a_constant_is_the_constant_and_nan_does_not_count() -> None:
    values = np.full(100, 2.0)
    values[::7] = np.nan
    assert (module._moving_average(values) == 2.0).all()
    ramp = module._moving_average(np.arange(80.0))
    np.testing.assert_allclose(ramp[2:-2], np.arange(2.0, 78.0))
    assert ramp[0] == 1.0  # of 0, 1 and 2


def test_no_figure_stays_with_pyplot(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    drawn(tmp_path / "curves.svg", title="run")
    assert plt.get_fignums() == []


def test_only_training_is_smoothed_so_that_the_best_lies_on_its_curve(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    smoothed: list[int] = []
    average = module._moving_average
    monkeypatch.setattr(module, "_moving_average", lambda values: (smoothed.append(len(values)), average(values))[1])  # type: ignore[func-returns-value]
    long = [(float(step), 1.0) for step in range(50)]
    draw_curves({"loss": {"train/loss": long}, "score": {"val/map": long[:45]}}, tmp_path / "curves.svg", "run")
    assert smoothed == [50]
