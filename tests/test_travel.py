"""A version is made again from its stream, bit for bit, and what changed between two is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import streams
import torch
from typed import run

from lifelong.errors import ArtifactError, ConfigError, DataError, RetentionGap
from lifelong.following.replay import Leg, average, rebuilt
from lifelong.following.settings import Follow
from lifelong.plan import Plan
from lifelong.release.difference import changed, tensors
from lifelong.release.registry import Registry
from lifelong.sources.folder import Folder
from lifelong.sources.log import Log

ROOT = Path(__file__).resolve().parents[1]
METHODS = {
    "powerlaw": ["--strategy", "powerlaw", "--set", "capacity=60", "--momentum", "0.9"],
    "dkvb": ["--strategy", "dkvb", "--set", "init_samples=40", "--set", "pairs=32", "--set", "books=8"],
}


def line(log, folder, *more):
    """The command of a trainer that runs to the end of what is there."""
    found = ["train", "--source", log, "--run", folder / "run", "--registry", folder / "registry", "--batch-size", 8]
    found += ["--follow", "until=end", "--allow-major", "--held-out", 0.2, "--max-accuracy-drop", 1]
    return [str(word) for word in [*found, "--max-forgetting", 1, "--json", *more]]


def elsewhere(words):
    """The same in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "lifelong.cli", *words], capture_output=True, text=True, env=environment, cwd="/"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_published_versions_are_made_again_bit_for_bit(name, tmp_path):
    """Of a messy stream that was learned in two goes, the first of which ended with half a batch in half a window."""
    records = streams.messy(340)
    log = streams.log(tmp_path / "log", records[:181])
    more = ["--follow", "window=count:60", "--follow", "publish_samples=90", *METHODS[name]]
    elsewhere(line(log, tmp_path / name, *more))
    with Log(log) as found:
        for i, (sid, payload) in enumerate(records[181:]):
            found._db.execute("INSERT INTO records(sid, time, payload) VALUES (?, ?, ?)", (sid, 1e3 + i, payload))
    run(*line(log, tmp_path / name, *more))  # the bits do not hang on the process
    registry = tmp_path / name / "registry"
    versions = Registry(registry).versions()
    assert len(versions) >= 3

    for version in (versions[0], versions[-2], versions[-1]):
        said = json.loads(run("replay", "--registry", registry, "--version", version, "--source", log, "--json"))
        assert said["identical"], said
        assert said["sha256"]["published"] == said["sha256"]["replayed"]

    with Log(log) as found:  # whoever makes a version again is no reader
        assert list(found.facts()["readers"]) == [(tmp_path / name / "run" / "reader").read_text().strip()]
    with Log(log) as found:  # other samples at the beginning; some of eight are not the gate's
        found._db.execute(
            'UPDATE records SET payload = (SELECT payload FROM records WHERE "offset" = 9) WHERE "offset" < 9'
        )
    with pytest.raises(ArtifactError, match=f"version {versions[-1]} is not reproduced: [1-9].* tensors"):
        run("replay", "--registry", registry, "--version", versions[-1], "--source", log)


@pytest.fixture
def published(tmp_path):
    """A run over 200 samples in two goes with versions from the command line, in this process."""
    records = streams.samples(200)
    log = streams.log(tmp_path / "log", records[:110])
    words = line(log, tmp_path, "--follow", "publish_samples=70", "--strategy", "replay")
    run(*words)
    with Log(log) as found:
        found.append(records[110:])
    run(*words)
    return log, tmp_path / "registry"


@pytest.mark.slow
def test_what_changed_is_told_and_a_replay_that_cannot_be_is_refused(published, tmp_path):
    log, registry = published
    found = Registry(registry)
    first, last = found.versions()[0], found.versions()[-1]
    said = json.loads(run("diff", first, last, "--registry", registry, "--json"))

    a, b = found.load(first).weights, found.load(last).weights
    for row in said["tensors"]:  # computed anew, by another road
        if row["outcome"] == "changed":
            one, other = a[row["name"]].numpy().astype("f8"), b[row["name"]].numpy().astype("f8")
            assert row["relative"] == pytest.approx(((other - one) ** 2).sum() ** 0.5 / (one**2).sum() ** 0.5)
    before, after = (found.load(v).training["data"] for v in (first, last))
    assert said["data"]["records"] == [before["records"], after["records"]]
    assert said["data"]["positions.log"] == [before["positions"]["log"], after["positions"]["log"]]
    assert after["start"] == {"log": 1}
    assert [end["records"] for end in after["ends"]] == [110, 200]
    assert said["settings"] == {}
    assert said["gate"]
    assert "memory" in said
    assert "tensors changed" in run("diff", first, last, "--registry", registry)

    assert "identical" in run("replay", "--registry", registry, "--version", last, "--source", log)
    with Log(log) as trimmed:
        trimmed.trim(through=4)
    with pytest.raises(RetentionGap, match="at offset 1 on, and the first record that is left there is 5"):
        run("replay", "--registry", registry, "--version", last, "--source", log)
    short = streams.log(tmp_path / "short", streams.samples(200)[:50])
    with pytest.raises(DataError, match="not the stream that the version was made from"):
        run("replay", "--registry", registry, "--version", last, "--source", short)


@pytest.mark.slow
def test_averages_with_the_version_before_are_made_again_from_it(tmp_path):
    """Also of a run in two goes; a manifest that does not name that version is refused, one without needs none."""
    records = streams.samples(200)
    log, registry = streams.log(tmp_path / "log", records[:110]), tmp_path / "registry"
    words = line(log, tmp_path, "--follow", "publish_samples=70", "--follow", "merge=ema", "--strategy", "replay")
    run(*words)
    with Log(log) as found:
        found.append(records[110:])
    run(*words)
    versions = Registry(registry).versions()
    told = [Registry(registry).manifest(v)["training"] for v in versions]
    assert [one.get("merged_with") for one in told] == [None, *versions[:-1]]
    for version in versions:
        assert "identical" in run("replay", "--registry", registry, "--version", version, "--source", log)

    learner, settings = streams.learner(), Follow(merge="ema")
    before = {name: p.clone() for name, p in learner.model.named_parameters()}
    with pytest.raises(ConfigError, match="does not say which version"):
        average(learner, {"merged": 2}, Registry(registry), settings)
    average(learner, {"merged": 1}, Registry(registry), settings)
    assert all(torch.equal(p, before[name]) for name, p in learner.model.named_parameters())


DATA = {"records": 1, "replayed": 0, "gaps": 0, "positions": {}, "start": {}, "ends": []}


@pytest.mark.parametrize(
    ("settings", "data", "why"),
    [
        ({"linger": 1.0}, {}, "cut by the clock"),
        ({"merge": "soup"}, {}, "candidates that nobody kept"),
        ({}, {"replayed": 2}, "2 dead letters were tried again"),
        ({}, {"gaps": 1}, "records were missing"),
    ],
)
def test_a_way_that_cannot_be_gone_again_is_refused(settings, data, why, tmp_path):
    with Log(tmp_path, create=True) as log, pytest.raises(ConfigError, match=why):
        rebuilt(streams.learner, log, {**DATA, **data}, Follow(**settings), Plan())


def test_a_leg_of_files_ends_in_the_middle_of_one(tmp_path):
    """Files are partitions in a row: what lies beyond the end is in a later file, or in a later row."""
    for name in ("a", "b", "c"):
        streams_file(tmp_path / f"{name}.npz")
    with Folder(tmp_path) as folder:
        leg = Leg(folder, {"b.npz": 1})
        assert [(r.partition, r.offset) for r in leg.poll(99)] == [
            ("a.npz", 0), ("a.npz", 1), ("a.npz", 2), ("b.npz", 0), ("b.npz", 1),
        ]  # fmt: skip
        assert leg.poll(99) == []


def streams_file(path):
    import numpy as np

    np.savez(path, x=np.zeros((3, 2), np.float32), y=np.arange(3))


def test_tensors_are_compared_by_bits_and_by_norm():
    """-0.0 is another value than 0.0 and moves nothing; a row that was added is compared by what was there."""
    one = {"w": torch.tensor([[3.0, 4.0]]), "same": torch.ones(2), "zero": torch.tensor([0.0]), "old": torch.ones(1)}
    other = {
        "w": torch.tensor([[3.0, 4.5], [9.0, 9.0]]), "same": torch.ones(2), "zero": torch.tensor([-0.0]),
        "more": torch.ones(1),
    }  # fmt: skip
    rows = {row["name"]: row for row in tensors(one, other)}

    assert {name: row["outcome"] for name, row in rows.items()} == {
        "w": "grown", "same": "same", "zero": "changed", "old": "gone", "more": "new"
    }  # fmt: skip
    assert rows["w"]["relative"] == pytest.approx(0.1)
    assert rows["zero"]["relative"] == 0.0


def test_values_are_compared_by_path():
    assert changed({"a": {"b": 1, "c": [1]}}, {"a": {"b": 2, "c": [1]}, "d": None}) == {"a.b": [1, 2]}
