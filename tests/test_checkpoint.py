"""Commits are whole or not there, and damage is found."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifelong import files
from lifelong.errors import ArtifactError, ConfigError, DataError
from lifelong.learning import checkpoint
from lifelong.learning.checkpoint import MANIFEST, TENSORS, Checkpoints, pack, unpack

STATES = [{"model": {"w": torch.full((3,), float(i))}, "step": i, "names": ["a", 1]} for i in range(1, 5)]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        both = isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape
        return both and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
dtypes = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool])
tensors = st.builds(
    lambda dtype, shape: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype),
    dtypes,
    st.lists(st.integers(0, 3), max_size=3),
)
keys = st.text(max_size=4) | st.sampled_from(["a", "a/b", "b", "0", "a~1b", "a~b", "/", ""])
states = st.dictionaries(
    keys,
    st.recursive(
        plain | tensors,
        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@given(state=states)
def test_what_is_packed_comes_back_bit_for_bit(state: dict[str, Any]) -> None:
    """Through JSON as it is written to disk; a tuple comes back as a list."""
    parts, rest = pack(state)

    assert equal(unpack(parts, files.parse_json(files.canonical_json(rest))), state)


def test_keys_with_slashes_do_not_fall_on_one_another() -> None:
    state = {"a/b": torch.tensor(1), "a": {"b": torch.tensor(2)}, "a~1b": torch.tensor(3)}
    parts, rest = pack(state)

    assert len(parts) == 3
    assert equal(unpack(parts, rest), state)


@pytest.mark.parametrize("state", [{"a": {1: 2}}, {"a": {"$tensor": "/b"}}])
def test_keys_that_would_not_come_back_are_refused(state: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="the state has the key"):
        pack(state)


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, torch.float32])
def test_values_that_are_not_plain_are_refused_and_nothing_is_committed(tmp_path: Path, value: object) -> None:
    commits = Checkpoints(tmp_path)
    with pytest.raises(DataError):
        commits.commit({"value": value})

    assert list(tmp_path.iterdir()) == []


def test_packed_tensors_are_copies() -> None:
    live = torch.zeros(3)
    parts, _ = pack({"a": live, "b": live})
    live.fill_(1)

    assert not any(t.any() for t in parts.values())


def test_the_newest_state_comes_back_and_older_ones_are_dropped(tmp_path: Path) -> None:
    commits = Checkpoints(tmp_path / "run", keep=2)
    assert commits.latest() is None

    assert [commits.commit(state) for state in STATES] == [1, 2, 3, 4]
    assert commits.numbers() == [3, 4]
    assert equal(Checkpoints(tmp_path / "run").latest(), STATES[3])
    assert equal(commits.load(3), STATES[2])
    with pytest.raises(ConfigError, match="at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_a_restored_tensor_is_writable_memory_of_its_own(tmp_path: Path) -> None:
    commits = Checkpoints(tmp_path)
    commits.commit(STATES[0])
    found = commits.load(1)
    found["model"]["w"].add_(1)

    assert equal(commits.load(1), STATES[0])


def two(folder: Path) -> tuple[Checkpoints, Path]:
    commits = Checkpoints(folder)
    commits.commit(STATES[0])
    commits.commit(STATES[1])
    return commits, folder / "00000002"


def falls_back(commits: Checkpoints, caplog: pytest.LogCaptureFixture) -> bool:
    """Whether the state before the damaged one is given, with one line in the log."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="lifelong.checkpoint"):
        found = commits.latest()
    (line,) = [record.getMessage() for record in caplog.records]
    return equal(found, STATES[0]) and line.startswith("checkpoint 2 is damaged") and "\n" not in line


@pytest.mark.parametrize("name", [TENSORS, MANIFEST])
def test_any_flipped_byte_is_found(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    commits, folder = two(tmp_path)
    data = (folder / name).read_bytes()
    for at in sorted({0, 1, *range(7, len(data), len(data) // 12), len(data) - 1}):
        (folder / name).write_bytes(data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :])
        assert falls_back(commits, caplog), at
    (folder / name).write_bytes(data)
    assert equal(commits.latest(), STATES[1])


@pytest.mark.parametrize("name", [TENSORS, MANIFEST])
@pytest.mark.parametrize("size", [0, 9, -2, None])
def test_a_file_cut_short_or_missing_is_found(
    tmp_path: Path, name: str, size: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    commits, folder = two(tmp_path)
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if size is not None:
        (folder / name).write_bytes(data[:size])

    assert falls_back(commits, caplog)


@pytest.mark.parametrize(
    "text",
    ["[]", "3", '{"format": "other"}', '{"format": "lifelong-checkpoint-2"}', '{"x": 1e999}', "\xff", "{" * 9999],
)
def test_a_foreign_manifest_is_found(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    commits, folder = two(tmp_path)
    (folder / MANIFEST).write_text(text, encoding="latin-1")

    assert falls_back(commits, caplog)


def test_tensors_of_another_commit_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    commits, folder = two(tmp_path)
    shutil.copy(tmp_path / "00000001" / TENSORS, folder / TENSORS)

    assert falls_back(commits, caplog)


def test_a_consistent_manifest_that_lists_what_is_not_there_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commits, folder = two(tmp_path)
    body = files.parse_json((folder / MANIFEST).read_bytes())
    body.pop("self")
    body["state"]["more"] = {checkpoint.MARK: "/nowhere"}
    sealed = {**body, "self": files.digest(files.canonical_json(body))}
    (folder / MANIFEST).write_bytes(files.canonical_json(sealed))

    assert falls_back(commits, caplog)


def test_without_any_commit_that_verifies_it_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Never a silent start from nothing."""
    commits, _ = two(tmp_path)
    for path in tmp_path.glob(f"*/{TENSORS}"):
        path.write_bytes(b"")

    with pytest.raises(ArtifactError, match=re.escape(f"no checkpoint in {tmp_path} verifies")):
        commits.latest()
    assert len(caplog.records) == 2


def dead_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_what_a_killed_writer_left_is_ignored_and_swept(tmp_path: Path) -> None:
    """Killed after the tensors, and killed after the manifest but before the rename."""
    commits, folder = two(tmp_path)
    host = files.scratch_name(tmp_path).name.split("-")[1]
    for count, name in enumerate(("half", "whole")):
        aside = tmp_path / f".tmp-{host}-{dead_pid()}-{name}"
        shutil.copytree(folder, aside)
        if not count:
            (aside / MANIFEST).unlink()

    assert equal(commits.latest(), STATES[1])
    assert commits.commit(STATES[2]) == 3
    Checkpoints(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002", "00000003"]


@pytest.mark.parametrize("step", ["write_new", "commit_folder"])
def test_a_writer_that_fails_leaves_the_old_commits(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commits, _ = two(tmp_path)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, step, full)
        with pytest.raises(OSError, match="no space"):
            commits.commit(STATES[2])

    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001", "00000002"]
    assert equal(commits.latest(), STATES[1])


def test_strangers_in_the_folder_are_let_alone(tmp_path: Path) -> None:
    commits, _ = two(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "00000009").write_text("a file, not a commit")
    commits.commit(STATES[2])

    assert equal(commits.latest(), STATES[2])
    assert (tmp_path / "notes").is_dir()
