"""One row for each run."""

import csv
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from detlit import RunTable
from detlit.callbacks.run_table import append_row
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, quiet_trainer
from tests.test_module import make_trainer, shapes, shapes_module


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_says_what_was_trained_and_how_good_it_became(tmp_path: Path) -> None:
    data = shapes()
    table = RunTable(columns={"dataset": "shapes, generated"})
    make_trainer(tmp_path, callbacks=[table], max_epochs=2).fit(shapes_module(data), data)
    (row,) = rows(tmp_path / "runs.csv")
    assert next(iter(row)) == "dataset"
    expected = {
        "dataset": "shapes, generated",
        "status": "finished",
        "module": "DetectionModule",
        "backbone": "YoloNASBackbone",
        "classes": "6",
        "train images": "8",
        "image size": "64x64",
        "batch size": "4",
        "optimizer": "AdamW",
        "learning rate": "0.001",
        "devices": "1 cpu",
        "epochs": "2",
        "steps": "4",
    }
    assert {name: row[name] for name in expected} == expected
    assert float(row["seconds"]) > 0
    assert {"val/map", "val/map_50", "detlit", "torch", "command"} <= row.keys()


@pytest.mark.parametrize(("mode", "best"), [("max", "0.6"), ("min", "0.2")])
def test_the_metrics_are_those_of_the_best_epoch(mode: Any, best: str, tmp_path: Path) -> None:
    module = TinyModule(scores=[0.4, 0.6, 0.2, 0.5])
    quiet_trainer(tmp_path, callbacks=[RunTable(mode=mode)], max_epochs=4).fit(module)
    (row,) = rows(tmp_path / "runs.csv")
    assert (row["val/map"], row["best epoch"]) == (best, {"0.6": "1", "0.2": "2"}[best])
    assert row["backbone"] == "TinyModule"


def test_a_monitor_of_another_name_and_a_path_of_its_own(tmp_path: Path) -> None:
    class Named(TinyModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/f1", [0.3, 0.9, 0.1][self.current_epoch])

    table = RunTable(tmp_path / "new" / "all.csv", monitor="val/f1")
    quiet_trainer(tmp_path, callbacks=[table], max_epochs=3).fit(Named())
    (row,) = rows(tmp_path / "new" / "all.csv")
    assert row["val/f1"] == "0.9"
    assert not (tmp_path / "runs.csv").exists()


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "stopped"), (ZeroDivisionError, "failed: ZeroDivisionError")]
)
def test_a_run_that_ends_early_has_a_row_too(error: type[BaseException], status: str, tmp_path: Path) -> None:
    def stop() -> None:
        raise error

    module = TinyModule()
    module.on_step = stop
    with pytest.raises((SystemExit, error)):
        quiet_trainer(tmp_path, callbacks=[RunTable()]).fit(module)
    assert [row["status"] for row in rows(tmp_path / "runs.csv")] == [status]


def test_a_smoke_test_leaves_no_row(tmp_path: Path) -> None:
    quiet_trainer(tmp_path, callbacks=[RunTable()], fast_dev_run=True).fit(TinyModule())
    assert not (tmp_path / "runs.csv").exists()


def test_columns_may_change_between_runs(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    append_row(table, {"a": 1, "b": "x, y\nz"})
    append_row(table, {"c": 3, "a": 2})
    append_row(table, {"b": 4})
    assert table.read_text().splitlines()[0] == "a,b,c"
    assert rows(table) == [
        {"a": "1", "b": "x, y\nz", "c": ""},
        {"a": "2", "b": "", "c": "3"},
        {"a": "", "b": "4", "c": ""},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_a_table_that_an_editor_left_without_its_last_newline_goes_on(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("a,b\n1,2")
    append_row(tmp_path / "runs.csv", {"a": 3, "b": 4})
    assert rows(tmp_path / "runs.csv") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def _append_many(path: Path, writer: int) -> None:
    for number in range(25):
        append_row(path, {"writer": writer, "number": number, f"own_{writer}": "x" * 3000})


def test_runs_that_end_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(tmp_path / "runs.csv", writer)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    found = [
        (int(row["writer"]), int(row["number"]), len(row[f"own_{row['writer']}"]))
        for row in rows(tmp_path / "runs.csv")
    ]
    assert sorted(found) == [(writer, number, 3000) for writer in range(4) for number in range(25)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,2,3\n", "its header has 2 columns and row 2 has 3 values"),
        (b"a,a\n1,2\n", "a column is there twice"),
        (b"\xff\xfe\x00", "cannot be read as a table"),
    ],
)
def test_another_file_is_refused_before_training_and_left_alone(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_bytes(content)
    module = TinyModule()
    module.on_step = lambda: pytest.fail("too late")
    with pytest.raises(ConfigurationError, match=words):
        quiet_trainer(tmp_path, callbacks=[RunTable()]).fit(module)
    assert (tmp_path / "runs.csv").read_bytes() == content


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mode='best' is unknown: choose 'max' or 'min'"):
        RunTable(mode="best")  # type: ignore[arg-type]
