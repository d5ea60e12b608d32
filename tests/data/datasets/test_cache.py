"""Parsed annotations kept on disk."""

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from detlit.data.datasets.cache import Arrays, cached_arrays, fingerprint


def old_file(path: Path, text: str = "", age: float = 60) -> str:
    path.write_text(text)
    os.utime(path, (0, time.time() - age))
    return str(path)


def counted(calls: list[int]) -> Arrays:
    calls.append(1)
    return {"numbers": np.arange(3), "names": np.array(["é", "b"])}


def test_a_second_read_takes_what_was_stored(tmp_path: Path) -> None:
    calls: list[int] = []
    for _ in range(2):
        arrays = cached_arrays(tmp_path, "a", "key", lambda: counted(calls))
        np.testing.assert_array_equal(arrays["numbers"], [0, 1, 2])
        assert arrays["names"].tolist() == ["é", "b"]
    assert len(calls) == 1
    cached_arrays(tmp_path, "a", "other key", lambda: counted(calls))
    cached_arrays(tmp_path, "b", "other key", lambda: counted(calls))
    assert len(calls) == 3
    assert len(list((tmp_path / ".detlit").iterdir())) == 2  # one per name, the older of "a" is gone


def test_without_key_nothing_is_stored(tmp_path: Path) -> None:
    calls: list[int] = []
    cached_arrays(tmp_path, "a", None, lambda: counted(calls))
    assert (len(calls), list(tmp_path.iterdir())) == (1, [])


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_cache_is_replaced(tmp_path: Path, damage: str) -> None:
    calls: list[int] = []
    cached_arrays(tmp_path, "a", "key", lambda: counted(calls))
    (file,) = (tmp_path / ".detlit").iterdir()
    content = {"cut": file.read_bytes()[:100], "empty": b"", "text": b"oops"}[damage]
    file.write_bytes(content)
    for _ in range(2):
        np.testing.assert_array_equal(cached_arrays(tmp_path, "a", "key", lambda: counted(calls))["numbers"], [0, 1, 2])
    assert len(calls) == 2


def test_where_the_folder_is_read_only_the_users_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.detlit").write_text("in the way")  # a stand-in for a read-only folder, which root may write to
    for _ in range(2):
        cached_arrays(tmp_path / "data", "a", "key", lambda: counted(calls))
    assert len(calls) == 1
    assert len(list((tmp_path / "home/detlit").glob("*/*.npz"))) == 1
    (tmp_path / "home/detlit").rename(tmp_path / "moved")
    (tmp_path / "home/detlit").write_text("in the way")
    assert cached_arrays(tmp_path / "data", "a", "key", lambda: counted(calls))["numbers"].tolist() == [0, 1, 2]


def test_names_sizes_times_and_options_are_in_the_fingerprint(tmp_path: Path) -> None:
    file = old_file(tmp_path / "a", "one")
    prints = [fingerprint([file]), fingerprint([file], "option"), fingerprint([file, file]), fingerprint([])]
    prints.append(fingerprint([old_file(tmp_path / "b", "one")]))
    prints.append(fingerprint([old_file(tmp_path / "a", "three")]))
    prints.append(fingerprint([old_file(tmp_path / "a", "three", age=61)]))
    assert len(set(prints)) == len(prints)
    assert None not in prints
    assert fingerprint([file]) == fingerprint([file])


def test_a_file_that_was_just_written_has_no_fingerprint(tmp_path: Path) -> None:
    assert fingerprint([old_file(tmp_path / "a"), old_file(tmp_path / "b", age=0)]) is None


def store(folder: Path) -> list[int]:
    numbers: list[int] = cached_arrays(folder, "a", "key", lambda: counted([]))["numbers"].tolist()
    return numbers


@pytest.mark.distributed
def test_processes_may_write_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(store, [tmp_path] * 20) == [[0, 1, 2]] * 20
    assert len(list((tmp_path / ".detlit").iterdir())) == 1
