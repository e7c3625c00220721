"""Commits that are written while training goes on: what was copied is what is saved, and no failure is lost."""

import threading

import pytest
import torch

from lifelong import files
from lifelong.learning.checkpoint import Checkpoints


def test_what_changes_after_the_start_is_not_saved(tmp_path, monkeypatch):
    """The writer is held back until the caller has changed its tensors in place."""
    gate, write = threading.Event(), files.write_new
    monkeypatch.setattr(files, "write_new", lambda *a: (gate.wait(10), write(*a))[1])
    x = torch.arange(4.0)
    with Checkpoints(tmp_path) as commits:
        commits.start({"x": x})
        x += 100
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
