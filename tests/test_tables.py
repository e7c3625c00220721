"""Files read in parts say the same as files read whole."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifelong.errors import DataError, TooLarge
from lifelong.sources import tables
from lifelong.sources.folder import Folder
from lifelong.sources.record import decode
from lifelong.sources.tables import opened

N = 23


def columns() -> dict[str, np.ndarray]:
    """Rows that differ in everything."""
    random = np.random.default_rng(0)
    return {
        "x": random.normal(size=(N, 5)).astype(np.float32),
        "y": np.arange(N) % 4,
        "sid": np.array([f"id-{i}" for i in range(N)]),
        "task": np.arange(N) // 6,
        "time": np.arange(N) * 0.5,
    }


def write_npz(folder, stored):
    np.savez(folder / "a.npz", **stored)


def write_deflated(folder, stored):
    np.savez_compressed(folder / "a.npz", **stored)


def write_fortran(folder, stored):
    np.savez(folder / "a.npz", **{**stored, "x": np.asfortranarray(stored["x"])})


def write_lists(folder, stored):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({**stored, "x": list(stored["x"])})
    parquet.write_table(table, folder / "a.parquet", row_group_size=7)


def write_columns(folder, stored):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    features = {f"f{i}": stored["x"][:, i] for i in range(5)}
    rest = {name: values for name, values in stored.items() if name != "x"}
    parquet.write_table(pa.table({**rest, **features}), folder / "a.parquet", row_group_size=7)


@pytest.mark.parametrize("write", [write_npz, write_deflated, write_fortran, write_lists, write_columns])
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(asked=st.lists(st.integers(0, N - 1), min_size=1, max_size=30), part=st.integers(1, 100))
def test_rows_asked_for_in_any_order_are_those_that_were_written(write, asked, part, tmp_path, monkeypatch):
    """Across parts, and across the groups of a Parquet file; a part of an .npz holds at least one row."""
    monkeypatch.setattr(tables, "PART", part)
    monkeypatch.setattr(tables, "ROWS", 3)
    stored = columns()
    write(tmp_path, stored)
    table = opened(next(tmp_path.iterdir()), 10**6)
    assert len(table) == N
    for number in asked:
        found = table.row(number)
        assert set(found) == set(stored)
        for name, values in stored.items():
            np.testing.assert_array_equal(found[name], values[number])
    table.close()


@pytest.mark.parametrize("write", [write_npz, write_lists])
def test_what_is_too_large_is_over_the_limit_and_the_rest_of_the_directory_comes(write, tmp_path, monkeypatch):
    """Rows of 20 bytes of inputs where 64 are allowed for all of a row, and lists in groups of more than 100."""
    if write is write_lists:
        monkeypatch.setattr(tables, "GROUP", 100)
    write(tmp_path, columns())
    np.savez(tmp_path / "b.npz", x=np.zeros((1, 5), np.uint8), y=np.zeros(1, np.uint8))
    with Folder(tmp_path, limit=64) as source:
        *large, last = source.poll(100)
    assert len(large) == N
    for row, record in enumerate(large):
        assert record.offset == row
        assert f"row {row} of {record.partition}: " in record.payload.decode()
        with pytest.raises(TooLarge, match="over the limit of 64 bytes"):
            decode(record.payload, 64)
    assert decode(last.payload).y == 0


def test_what_is_damaged_within_is_named_with_its_row(tmp_path):
    write_deflated(tmp_path, {**columns(), "x": np.random.default_rng(0).normal(size=(N, 3000))})
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "a.npz").write_bytes(data)
    os.utime(tmp_path / "a.npz", (time.time() - 60,) * 2)
    with Folder(tmp_path) as source, pytest.raises(DataError, match=r"a\.npz cannot be read at row \d+"):
        for record in source.poll(N):
            decode(record.payload)


@pytest.mark.parametrize(
    "stored", [{"x": np.zeros((3, 2))}, {"y": np.zeros(3)}, {"x": np.zeros((3, 2)), "y": np.zeros(2)}]
)
def test_a_file_without_inputs_or_labels_is_refused(stored, tmp_path):
    np.savez(tmp_path / "a.npz", **stored)
    with pytest.raises(DataError, match="needs x and y of the same length"):
        opened(tmp_path / "a.npz", 10**6)


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 2)), y=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="no array of numbers or texts"):
        opened(tmp_path / "a.npz", 10**6)
