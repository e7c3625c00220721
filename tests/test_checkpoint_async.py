"""Commits that are written while training goes on: what was copied is what is saved, and no failure is lost."""

import threading

import pytest
import torch

from lifelong import files, plugins, trial
from lifelong.learning.checkpoint import Checkpoints


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
