"""A stream that pauses: what the clock asks for is done all the same, and leaves no trace in what is learned."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import streams
import torch

from lifelong.checks import digest
from lifelong.daemon import Stopped
from lifelong.following.settings import Follow
from lifelong.learning.checkpoint import Checkpoints
from lifelong.release.registry import Registry
from lifelong.sources.folder import Folder

LOOKS = 25  # at a stream that pauses, before a test gives up


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Look often."""
    monkeypatch.setattr("lifelong.following.intake.POLL_SECONDS", 0.01)


def newest(made):
    return Checkpoints(made.run_folder / "checkpoints").latest()


def until(made, done, each=lambda: None):
    """Run; at each look that finds nothing call `each`, and stop once `done`, or after too many looks."""
    looks = []

    def notify(kind, facts):
        if kind == "waiting":
            looks.append(kind)
            each()
            if done() or len(looks) == LOOKS:
                made.stop.set()

    made.watch(notify)
    with pytest.raises(Stopped):
        made.run()
    assert len(looks) < LOOKS, "it never came"


def forever(tmp_path, name="run", count=20, registry=None, **settings):
    source = tmp_path / "log"
    if not source.exists():
        streams.log(source, streams.samples(count))
    settings = {"until": "forever", **settings}
    return streams.follower(source, tmp_path / name, settings=settings, registry=registry, commit_every=1000)


def test_what_was_learned_before_a_pause_is_committed_when_it_is_time_and_only_once(tmp_path):
    made = forever(tmp_path, commit_seconds=0.02)
    looks = []

    def enough():
        looks.append(newest(made)["learner"]["counters"]["samples"])
        return looks.count(16) == 5  # two whole batches of the 20 samples; the rest waits for more

    until(made, enough)
    assert looks[-1] == 16
    assert Checkpoints(made.run_folder / "checkpoints").numbers()[-1] <= 5


def test_a_candidate_goes_to_the_gate_in_a_pause(tmp_path):
    registry = Registry(tmp_path / "registry", create=True)
    made = forever(tmp_path, registry=registry, publish_seconds=0.05, linger=0.01)
    until(made, lambda: made.intake.positions == {"log": 20} and made.trainee.publisher.samples == 0)
    assert registry.versions()


def test_settings_that_are_read_again_in_a_pause_count_at_once(tmp_path):
    registry = Registry(tmp_path / "registry", create=True)
    made = forever(tmp_path, registry=registry)
    until(
        made, lambda: bool(registry.versions()),
        lambda: made.change(Follow(until="forever", publish_samples=3)),
    )  # fmt: skip
    assert registry.versions() == [1]


def test_weights_that_are_no_numbers_in_a_pause_are_taken_back_and_nothing_is_skipped(tmp_path):
    whole, made = forever(tmp_path, "whole"), forever(tmp_path, commit_seconds=0.02)
    until(whole, lambda: True)
    spoiled = []

    def spoil():
        if not spoiled:
            spoiled.append(True)
            with torch.no_grad():
                next(made.trainee.learner.model.parameters()).fill_(torch.nan)

    until(made, lambda: bool(spoiled) and newest(made)["learner"]["counters"]["samples"] == 16, spoil)
    assert digest(newest(made)["learner"]) == digest(newest(whole)["learner"])
    assert newest(made)["intake"]["positions"] == newest(whole)["intake"]["positions"] == {"log": 16}


def test_a_commit_in_the_middle_of_a_batch_changes_no_bit(tmp_path):
    """20 samples, a pause with a commit that finds half a batch waiting, then 20 more; and all 40 without a pause."""
    records = streams.samples(40)
    streams.log(tmp_path / "all", records)
    streams.log(tmp_path / "log", records[:20])
    whole = streams.follower(tmp_path / "all", tmp_path / "whole")
    whole.run()
    made, seen = forever(tmp_path, commit_seconds=0.02), []

    def more():
        if not seen and newest(made)["learner"]["counters"]["samples"] == 16:
            seen.append(True)
            with streams.Log(tmp_path / "log") as log:
                log._db.executemany("INSERT INTO records(sid, time, payload) VALUES (?, 0, ?)", records[20:])

    until(made, lambda: newest(made)["learner"]["counters"]["samples"] == 40, more)
    assert digest(newest(made)["learner"]) == digest(newest(whole)["learner"])
    assert newest(made)["prequential"] == newest(whole)["prequential"]


def test_a_damaged_file_is_a_dead_letter_and_one_that_is_late_is_in_the_figures(tmp_path):
    files = tmp_path / "files"
    files.mkdir()

    def write(name):
        np.savez(files / f"{name}.npz", x=np.eye(8, streams.WIDTH, dtype=np.float32), y=np.arange(8) % 3)

    for name in ("b", "c", "d"):
        write(name)
    (files / "c.npz").write_bytes(b"PK")
    os.utime(files / "c.npz", (time.time() - 60,) * 2)
    made = forever(tmp_path)
    made.intake.source = Folder(files)
    until(made, lambda: made.facts()["late"] == 1, lambda: write("a"))
    facts = made.facts()
    assert (facts["samples"], facts["dead"], facts["late"]) == (16, 1, 1)
    assert "b'c.npz is put aside: " in made.intake.dead.letters[0].error
