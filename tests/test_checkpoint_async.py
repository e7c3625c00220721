"""Commits that are written while training goes on: what was copied is what is saved, and no failure is lost."""

import errno
import hashlib
import resource
import signal
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lifelong import files, plugins, trial
from lifelong.learning.checkpoint import Checkpoints
from lifelong.learning.packing import write_tensors


@pytest.mark.slow
@pytest.mark.parametrize("name", plugins.names("strategy"))
def test_a_state_stays_as_it_was_taken_while_training_goes_on(name):
    """It is written meanwhile: whatever is changed in place must not be in it."""
    make = plugins.find("strategy", name)
    made, kept = trial.learner(trial.small(make), trial.kind(make)), []

    def keep():
        if made.counters["steps"] % 7 == 3:
            state = made.state()
            kept.append((state, trial.digest(state)))

    for experience in trial.Toy(trial.kind(make)).experiences(3):
        made.fit(experience, on_step=keep)
    assert len(kept) >= 2
    assert [trial.digest(state) for state, _ in kept] == [before for _, before in kept]


def test_what_shares_memory_is_saved_as_what_it_is(tmp_path):
    whole = torch.arange(12.0)
    state = {"a": whole, "again": whole, "part": whole[3:5], "turned": whole.view(3, 4).T, "none": torch.empty(0)}
    with Checkpoints(tmp_path) as commits:
        commits.start(state)
        commits.wait()
        found = commits.latest()
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in state.items()}


def test_a_commit_is_written_while_the_caller_goes_on(tmp_path, monkeypatch):
    """The writer is held back until the caller has gone on."""
    gate, write = threading.Event(), files.write_new
    monkeypatch.setattr(files, "write_new", lambda *a: (gate.wait(10), write(*a))[1])
    with Checkpoints(tmp_path) as commits:
        commits.start({"x": torch.arange(4)})
        assert commits.numbers() == []
        gate.set()
        commits.wait()
        assert commits.latest()["x"].tolist() == [0, 1, 2, 3]


def test_the_end_waits_for_what_was_started(tmp_path):
    with Checkpoints(tmp_path) as commits:
        commits.start({"x": torch.zeros(3)})
    assert Checkpoints(tmp_path).numbers() == [1]


def test_one_is_written_at_a_time_in_order(tmp_path):
    with Checkpoints(tmp_path, keep=3) as commits:
        for i in range(5):
            commits.start({"i": i})
        assert commits.commit({"i": 5}) == 6
    assert [Checkpoints(tmp_path).load(n)["i"] for n in (4, 5, 6)] == [3, 4, 5]


def test_a_failure_is_told_by_the_next_call_and_only_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Checkpoints(tmp_path) as commits:
        commits.commit({"i": 0})
        with monkeypatch.context() as patch:
            patch.setattr(files, "write_new", full)
            commits.start({"i": 1})
            with pytest.raises(OSError, match="No space"):
                commits.start({"i": 2})
        commits.wait()
        commits.start({"i": 3})
        commits.wait()
        assert commits.latest() == {"i": 3}
        assert not list(tmp_path.glob(".tmp-*"))


def test_tensors_are_written_from_their_memory_with_the_bytes_of_the_library(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.tensor(7)}

    sha256, size = write_tensors(tmp_path / "file", tensors)

    expected = safetensors.torch.save(tensors)
    assert (tmp_path / "file").read_bytes() == expected
    assert (sha256, size) == (hashlib.sha256(expected).hexdigest(), len(expected))


def test_a_file_system_that_takes_no_more_is_told_by_its_number(tmp_path: Path) -> None:
    """A real limit on the size of files; the commits before it are there, and the next one is made."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Checkpoints(tmp_path / "run", keep=3) as commits:
        commits.commit({"x": torch.zeros(3)})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
            with pytest.raises(OSError, match="File too large") as caught:
                commits.commit({"x": torch.zeros(10_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert caught.value.errno == errno.EFBIG
        assert commits.numbers() == [1]
        assert [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".tmp-")] == []
        assert commits.commit({"x": torch.zeros(10_000)}) == 2
