"""Files are the old ones or the new ones, never something in between."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong import files
from lifelong.errors import DataError, NotFound

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(plain)
def test_canonical_json_is_read_back_as_it_was(value):
    data = files.canonical_json(value)
    assert files.parse_json(data) == json.loads(data) == value
    assert files.canonical_json(files.parse_json(data)) == data  # there is one text only


def test_canonical_json_does_not_see_the_order_of_keys():
    assert files.canonical_json({"a": 1, "b": 2}) == files.canonical_json({"b": 2, "a": 1}) == b'{"a":1,"b":2}\n'


def test_the_digest_is_the_known_one():
    """SHA-256 of 'abc', from FIPS 180-2."""
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.digest(b"abc") == known


def test_a_file_has_the_digest_of_its_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert files.sha256(tmp_path / "f") == files.digest(b"abc")


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [float("nan"), {"a": float("inf")}, {1: "a"}, {"a": {1, 2}}, [np.float64(1.0)], b"", deep()]
)
def test_only_plain_values_become_json(value):
    with pytest.raises(DataError):
        files.canonical_json(value)


@pytest.mark.parametrize(
    "data", [b"", b"NaN", b'{"a": Infinity}', b'{"a":1,"a":2}', b"\xff", b"{", b"[" * 100_000, b"{} {}"]
)
def test_only_strict_json_is_read(data):
    with pytest.raises(DataError, match="not JSON"):
        files.parse_json(data)


def test_reading_follows_no_link_and_waits_for_no_pipe(tmp_path):
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    assert files.read_file(tmp_path / "real") == b"x"
    with pytest.raises(DataError, match="symbolic link"):
        files.read_file(tmp_path / "link")
    for odd in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match="not a regular file"):
            files.read_file(odd)
    with pytest.raises(NotFound, match="is missing"):
        files.read_file(tmp_path / "none")


def test_write_atomic_replaces_the_whole_content_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "f"
    files.write_atomic(path, b"a long first content")
    files.write_atomic(path, b"short")
    assert path.read_bytes() == b"short"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "f"
    files.write_atomic(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_create_exclusive_has_one_winner_and_its_content(tmp_path):
    files.create_exclusive(tmp_path / "f", b"first")
    with pytest.raises(FileExistsError):
        files.create_exclusive(tmp_path / "f", b"second")
    assert (tmp_path / "f").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_every_byte_is_flushed_before_the_name_appears(tmp_path, monkeypatch):
    """Order on disk: content, folder written aside, rename, folder that holds the name."""
    done = []
    fsync = os.fsync

    def flushed(descriptor):
        done.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, (tmp_path / "final").exists()))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", flushed)
    with files.scratch(tmp_path) as folder:
        (folder / "a").write_bytes(b"a")
        files.commit_folder(folder, tmp_path / "final")
    assert done == [("a", False), (folder.name, False), (tmp_path.name, True)]


def test_a_committed_folder_is_readable_for_everybody(tmp_path):
    old = os.umask(0o077)
    try:
        with files.scratch(tmp_path) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "a").write_bytes(b"a")
            files.commit_folder(folder, tmp_path / "final")
    finally:
        os.umask(old)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "final", *sorted((tmp_path / "final").rglob("*")))]
    assert modes == [0o755, 0o755, 0o644]


def test_committing_onto_a_full_folder_changes_nothing(tmp_path):
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "a").write_bytes(b"old")
    with files.scratch(tmp_path) as folder:
        (folder / "a").write_bytes(b"new")
        with pytest.raises(FileExistsError):
            files.commit_folder(folder, tmp_path / "final")
    assert (tmp_path / "final" / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["final"]


WAITS_IN_SCRATCH = """
import sys, time
from pathlib import Path
from lifelong import files
with files.scratch(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"h")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.mark.e2e
def test_sweep_removes_what_the_dead_left_and_nothing_else(tmp_path):
    """While its writer lives, a scratch folder stays; after kill -9 the next sweep takes it."""
    command = [sys.executable, "-c", WAITS_IN_SCRATCH, str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    left = Path(child.stdout.readline().strip())
    assert left.exists()
    assert files.sweep(tmp_path) == 0
    child.kill()
    child.communicate()
    (tmp_path / "data").write_bytes(b"kept")
    with files.scratch(tmp_path) as own:
        assert files.sweep(tmp_path) == 1
        assert not left.exists()
        assert own.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_what_another_host_left_goes_when_it_is_a_day_old(tmp_path):
    other = tmp_path / f"{files.PREFIX}elsewhere-1-abc"
    other.write_bytes(b"x")
    assert files.sweep(tmp_path) == 0
    old = time.time() - files.STALE_SECONDS - 60
    os.utime(other, (old, old))
    assert files.sweep(tmp_path) == 1
