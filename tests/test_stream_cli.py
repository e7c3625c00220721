"""`lifelong stream`, `lifelong dead` and `lifelong train --source`: what a person types, and what comes back."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import streams
from typed import run

from lifelong.daemon import Stopped
from lifelong.errors import ConfigError, DataError, LifelongError, NotFound, UnknownName
from lifelong.locks import FileLock


@pytest.fixture(autouse=True)
def handlers():
    """A run sets them for its process."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def blobs(path, count=120, classes=3):
    random = np.random.default_rng(0)
    y = random.integers(0, classes, count)
    np.savez(path, x=(2 * np.eye(6)[y] + random.normal(0, 0.3, (count, 6))).astype(np.float32), y=y)


@pytest.mark.slow
def test_files_are_appended_once_shown_and_trimmed(tmp_path):
    blobs(tmp_path / "a.npz")
    log = tmp_path / "log"
    assert json.loads(run("stream", "append", log, tmp_path / "a.npz", "--json"))["appended"] == 120
    again = json.loads(run("stream", "append", log, tmp_path / "a.npz", "--json"))
    assert (again["appended"], again["there_already"]) == (0, 120)
    assert "appended 120" in run("stream", "append", log, tmp_path / "a.npz", "--prefix", "second-")

    shown = json.loads(run("stream", "show", log, "--last", 2, "--json"))
    assert [record["sid"] for record in shown["records"]] == ["second-a.npz:118", "second-a.npz:119"]
    assert shown["last"]["log"] == shown["records"][1]["offset"] >= 240  # what is left out may use up offsets
    assert shown["first"] == {"log": 1}
    with pytest.raises(ConfigError, match="nobody has committed"):
        run("stream", "trim", log, "--read")
    assert json.loads(run("stream", "trim", log, "--keep", 10, "--json")) == {"deleted": 230}
    with pytest.raises(ConfigError, match="either --keep N or --read"):
        run("stream", "trim", log)


def test_a_file_of_the_same_name_with_other_samples_is_refused_and_not_left_out(tmp_path):
    log, folders = tmp_path / "log", [tmp_path / day for day in ("monday", "tuesday")]
    for i, folder in enumerate(folders):
        folder.mkdir()
        blobs(folder / "a.npz", 20 + i)
    files = [folder / "a.npz" for folder in folders]
    for _ in range(2):
        run("stream", "append", log, files[0])
    with pytest.raises(DataError, match=r"tuesday/a.npz has a sample 'a.npz:0', and the log has another"):
        run("stream", "append", log, files[1])
    for appended in (21, 0):
        told = json.loads(run("stream", "append", log, files[1], "--prefix", "tuesday-", "--json"))
        assert told["appended"] == appended


@pytest.mark.slow
def test_trimming_what_was_read_waits_for_every_run_until_it_is_forgotten(tmp_path):
    """One run is at its start, one at the end; a reader of an older version, `trainer`, counts as well."""
    log, folder = streams.log(tmp_path / "log", streams.samples(64)), tmp_path / "one" / "run"
    one, two = streams.follower(log, folder), streams.follower(log, tmp_path / "two" / "run")
    one.watch(lambda kind, facts: one.stop.set() if facts.get("samples") == 24 else None)
    with pytest.raises(Stopped):
        one.run()
    two.run()
    names = [(tmp_path / run / "run" / "reader").read_text().strip() for run in ("one", "two")]
    readers = json.loads(run("stream", "show", log, "--json"))["readers"]
    assert readers == dict(zip(names, (24, 64), strict=True))
    streams.Log(log, reader="trainer").commit_hint({"log": 16})

    assert json.loads(run("stream", "trim", log, "--read", "--json")) == {"deleted": 16}
    assert "forgot trainer" in run("stream", "trim", log, "--forget", "trainer")
    assert json.loads(run("stream", "trim", log, "--read", "--json")) == {"deleted": 8}
    again = streams.follower(log, folder)
    again.run()  # no record is missing
    assert again.facts()["samples"] == 64
    assert json.loads(run("stream", "trim", log, "--read", "--forget", names[0], "--json")) == {"deleted": 40}
    with pytest.raises(NotFound, match="knows no reader"):
        run("stream", "trim", log, "--forget", names[0])


def test_a_run_that_has_only_begun_holds_everything(tmp_path):
    log = streams.log(tmp_path / "log", streams.samples(30))
    one, seen = streams.follower(log, tmp_path / "run", settings={"until": "forever"}), []

    def look(kind, facts):
        seen.append(json.loads(run("stream", "trim", log, "--read", "--json")))
        one.stop.set()

    one.watch(lambda kind, facts: look(kind, facts) if kind == "committed" else None)
    with pytest.raises(Stopped):
        one.run()
    assert seen[0] == {"deleted": 0}


def test_what_cannot_be_appended_is_named(tmp_path):
    with pytest.raises(NotFound, match="there is no file"):
        run("stream", "append", tmp_path / "log", tmp_path / "none.npz")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(LifelongError, match="convert it first"):
        run("stream", "append", tmp_path / "log", tmp_path / "a.csv")


@pytest.mark.slow
def test_a_stream_is_followed_its_letters_listed_replayed_and_dropped(tmp_path):
    """Two samples of a class too many become letters; with room for it, the replayed one is learned."""
    log, folder = tmp_path / "log", tmp_path / "run"
    clean = streams.samples(100, classes=2)
    more = [r for r in streams.samples(60, classes=3, seed=5) if b'"y":2' in r[1]][:2]
    streams.log(log, [*clean, *more])
    line = ["train", "--source", log, "--follow", "until=end", "--run", folder, "--json", "--follow"]

    end = json.loads(run(*line, "max_classes=2").splitlines()[-1])["end"]
    assert (end["samples"], end["letters"]) == (100, 2)
    told = json.loads(run("status", folder, "--json"))
    assert (told["samples"], told["letters"], told["labels"], told["running"]) == (100, 2, 2, None)
    assert told["model"] == end["model"]
    with FileLock(folder / ".lock", "wait"):
        assert json.loads(run("status", folder, "--json"))["running"] == os.getpid()
    letters = json.loads(run("dead", "list", folder, "--json"))["letters"]
    assert [letter["sid"] for letter in letters] == [sid for sid, _ in more]
    assert "one more than max_classes=2" in letters[0]["error"]
    assert "1 records are tried again" in run("dead", "replay", folder, letters[0]["number"])
    assert "dropped 1" in run("dead", "drop", folder)
    with pytest.raises(NotFound, match="no dead letter 77"):
        run("dead", "drop", folder, 77)

    end = json.loads(run(*line, "max_classes=3").splitlines()[-1])["end"]
    assert (end["samples"], end["letters"]) == (101, 0)
    assert "101" in run(*line[:-2], "--follow", "max_classes=3")


@pytest.mark.slow
def test_letters_are_dropped_from_what_the_run_is_by_then_and_no_commit_goes(tmp_path, monkeypatch):
    """A trainer commits between the look at the folder and the lock; it keeps 8 commits, and they stay."""
    log, folder = streams.log(tmp_path / "log", [*streams.samples(64), ("bad", b"?")]), tmp_path / "run"

    def train(**settings):
        made = streams.follower(log, folder, settings={"keep": 8, **settings}, commit_every=1)
        made.run()
        return made.facts()["samples"]

    assert train() == 64
    commits = folder / "checkpoints"
    assert len(list(commits.glob("0*"))) == 8

    def late(path, remedy):
        monkeypatch.setattr("lifelong.commands.stream.FileLock", FileLock)
        with streams.Log(log) as more:
            more._db.executemany("INSERT INTO records(sid, time, payload) VALUES (?, 0, ?)", streams.samples(8, seed=1))
        assert train() == 72
        return FileLock(path, remedy)

    monkeypatch.setattr("lifelong.commands.stream.FileLock", late)
    run("dead", "drop", folder)
    assert len(list(commits.glob("0*"))) == 9
    told = json.loads(run("status", folder, "--json"))
    assert (told["samples"], told["letters"]) == (72, 0)
    assert train() == 72
    assert len(list(commits.glob("0*"))) == 8


def test_a_setting_that_is_not_there_is_refused_before_anything_is_made(tmp_path):
    streams.log(tmp_path / "log", [])
    with pytest.raises(UnknownName, match="did you mean 'window'"):
        run("train", "--source", tmp_path / "log", "--follow", "windw=none", "--run", tmp_path / "run")
    with pytest.raises(ConfigError, match="name one with --source"):
        run("train", "--follow", "window=none", "--run", tmp_path / "run")
    with pytest.raises(NotFound, match="no run in"):
        run("dead", "list", tmp_path / "run")
    with pytest.raises(NotFound, match="no run in"):
        run("status", tmp_path / "run")
    assert not (tmp_path / "run").exists()
