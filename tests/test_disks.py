"""A disk that is really full, or really read-only: one clear message, nothing acknowledged is lost, and it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import streams
from disks import mounted

from lifelong import cli
from lifelong.checks import digest
from lifelong.errors import ConfigError
from lifelong.learning.checkpoint import Checkpoints
from lifelong.release.registry import Registry
from lifelong.sources.log import Log

with warnings.catch_warnings():  # bentoml's own imports
    warnings.simplefilter("ignore")
    from inprocess import X, checked, running

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
FULL = "No space left on device"


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk") as found:
        yield found


def outcome(made):
    return digest(Checkpoints(made.run_folder / "checkpoints").latest())


def test_a_publish_that_finds_no_room_changes_nothing_and_is_done_when_there_is(disk, kit):
    """Whether the weights do not fit, the manifest, the event or the pointer: a page more each time."""
    registry = Registry(disk.folder / "registry", create=True)
    registry.publish(kit.numbered(1))
    refused = []
    for leave in range(10):
        snapshot, before = kit.numbered(leave + 2), registry.current()
        disk.fill(leave)
        try:
            registry.publish(snapshot)
        except OSError as error:
            refused.append(str(error))
            assert registry.load(registry.current()).version == before
        disk.free()
        version = registry.publish(snapshot)
        assert registry.current() == version == registry.versions()[-1] == leave + 2
        assert registry.load(version).weights.keys() == snapshot.weights.keys()
        assert not list(registry.root.rglob(".tmp-*"))
    assert 3 <= len(refused) < 10
    assert all(FULL in said and str(registry.root) in said for said in refused)


def test_a_registry_that_is_read_only_serves_and_takes_versions_again_later(disk, kit):
    registry = Registry(disk.folder / "registry", create=True)
    registry.publish(kit.numbered(1))
    disk.readonly(registry.root)
    with pytest.raises(ConfigError, match="cannot be written from here; do it where it is not read-only"):
        registry.publish(kit.numbered(2))
    with pytest.raises(OSError, match="Read-only file system"):
        (registry.root / "x").touch()
    assert Registry(registry.root).load(1).version == registry.current() == 1
    disk.readonly(registry.root, yes=False)
    assert registry.publish(kit.numbered(2)) == registry.current() == 2


def test_a_command_on_a_full_disk_is_one_line(disk, kit, monkeypatch, capsys):
    registry = Registry(disk.folder / "registry", create=True)
    kit.publish(registry, 2)
    registry.promote(1)
    monkeypatch.setattr(sys, "argv", ["lifelong", "registry", "promote", str(registry.root), "2"])
    disk.fill()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lifelong: [Errno 28] {FULL}: '{registry.root}/")
    assert ended.value.code == 9
    assert registry.current() == 1
    disk.free()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, registry.current()) == (0, 2)


@pytest.mark.parametrize("leave", [0, 1, 2])
def test_training_waits_for_room_and_ends_with_the_same_bits(leave, disk, tmp_path, monkeypatch, caplog):
    """Full while a commit is written beside the training, and while the last one is waited for."""
    monkeypatch.setattr("lifelong.following.saving.DISK_SECONDS", 0.01)
    stream, said = streams.log(tmp_path / "log", streams.messy(160)), []

    def notify(kind, facts):
        if kind == "step" and facts["steps"] in (6, 16):
            disk.fill(leave)
        elif kind == "waiting" and facts["why"]:
            said.append(facts["why"])
            assert made._commits.latest() is not None
            if len(said) != 2:  # the last commit is tried twice in vain
                disk.free()

    whole = streams.follower(stream, tmp_path / "whole")
    made = streams.follower(stream, disk.folder / "run", notify=notify)
    whole.run()
    made.run()

    assert outcome(made) == outcome(whole)
    assert len(said) == 3
    assert all(FULL in why for why in said)
    warned = [record.getMessage() for record in caplog.records if FULL in record.getMessage()]
    assert len(warned) == 3
    assert all(line.endswith("training waits until there is room") for line in warned)
    assert not list(made.run_folder.rglob(".tmp-*"))


def test_training_waits_for_a_disk_that_is_read_only(disk, tmp_path, monkeypatch):
    monkeypatch.setattr("lifelong.following.saving.DISK_SECONDS", 0.01)
    stream, said = streams.log(tmp_path / "log", streams.messy(160)), []
    whole = streams.follower(stream, tmp_path / "whole")

    def notify(kind, facts):
        if kind == "step" and facts["steps"] == 9:
            disk.readonly(made.run_folder / "checkpoints")
        elif kind == "waiting" and facts["why"]:
            said.append(facts["why"])
            disk.readonly(made.run_folder / "checkpoints", yes=False)

    made = streams.follower(stream, disk.folder / "run", notify=notify)
    whole.run()
    made.run()
    assert outcome(made) == outcome(whole)
    (why,) = said
    assert "Read-only file system" in why


@pytest.mark.parametrize("full", ["the run's disk", "the registry's disk"])
def test_a_publication_that_finds_no_room_ends_no_training(full, disk, tmp_path, monkeypatch, caplog):
    """On the run's disk what notes the commit of a version waits; on the registry's, a later candidate is published."""
    monkeypatch.setattr("lifelong.following.saving.DISK_SECONDS", 0.01)
    monkeypatch.setattr("lifelong.following.publisher.RETRY_SECONDS", 0.0)
    mine = full == "the run's disk"
    registry = Registry((tmp_path if mine else disk.folder) / "registry", create=True)
    steps = []

    def notify(kind, facts):
        steps.append(facts.get("steps", 0))
        if (mine and kind == "published" and facts["version"] == 1) or (not mine and steps == [0]):
            disk.fill()
        elif (kind == "waiting" and facts["why"]) or (not mine and max(steps) == 15):
            disk.free()

    made = streams.follower(
        streams.log(tmp_path / "log", streams.samples(240)), (disk.folder if mine else tmp_path) / "run",
        settings={"publish_samples": 60}, registry=registry, notify=notify,
    )  # fmt: skip
    made.run()
    told = "training waits until there is room" if mine else "training goes on"
    warned = [record.getMessage() for record in caplog.records if FULL in record.getMessage()]
    assert warned
    assert all(line.endswith(told) for line in warned)
    assert len(registry.versions()) >= 2
    assert registry.load(registry.current()).version == registry.versions()[-1]
    assert registry.current() in Checkpoints(made.run_folder / "checkpoints").pins()


def test_labels_and_rows_that_were_acknowledged_outlive_a_full_disk(disk, tmp_path, kit, caplog):
    """A page more each time; answers go on meanwhile, and what was refused is taken when it is sent again."""
    registry = Registry(tmp_path / "registry", create=True)
    registry.publish(kit.numbered(1))
    labels, rows, refused = [], [], []

    def sent(client, route, body, kept, name):
        response = client.post(route, json=body)
        if response.status_code == 200:
            kept.append(name)
        else:
            refused.append(checked(response, 503)["detail"])

    with running(registry, disk.folder) as client:
        for leave in range(12):
            told = checked(client.post("/v1/predict", json={"x": X, "remember": True}))
            names = [each["id"] for each in told["predictions"]]
            disk.fill(leave)
            sent(client, "/v1/feedback", {"labels": [{"prediction": names[0], "label": "cat"}]}, labels, names[0])
            sent(client, "/v1/gallery/add", {"ids": [f"a{leave}"], "x": X[:1]}, rows, f"a{leave}")
            checked(client.post("/v1/predict", json={"x": X}))
            assert len(checked(client.post("/v1/search", json={"x": X[:1], "k": 20}))["hits"][0]) == len(set(rows))
            disk.free()
            again = {"labels": [{"prediction": name, "label": "cat"} for name in names]}
            told = checked(client.post("/v1/feedback", json=again))
            assert told["accepted"] + told["duplicate"] == 2
            checked(client.post("/v1/gallery/add", json={"ids": [f"a{leave}"], "x": X[:1]}))
            labels, rows = [*labels, *names], [*rows, f"a{leave}"]
    assert len(refused) >= 4
    assert all("disk" in said for said in refused)
    assert not [record for record in caplog.records if record.exc_info]  # a full disk is no bug
    with Log(disk.folder / "state" / "stream") as log:
        kept = [record.sid.split(".")[0] for record in log.poll(1000)]
    assert sorted(kept) == sorted(set(labels))
    with running(registry, disk.folder) as client:
        assert checked(client.get("/v1/gallery"))["rows"] == len(set(rows))


def test_a_promotion_that_finds_no_room_is_refused_and_done_when_it_is_sent_again(disk, tmp_path, kit):
    registry = Registry(disk.folder / "registry", create=True)
    kit.publish(registry, 2)
    registry.promote(1)
    once = {"idempotency-key": "step-1"}
    with running(registry, tmp_path, timeout_seconds=4) as client:
        disk.fill()
        said = checked(client.post("/v1/admin/promote", json={"version": 2}, headers=once), 503)
        assert FULL in said["detail"]
        assert checked(client.post("/v1/predict", json={"x": X}))["version"] == registry.current() == 1
        disk.free()
        assert checked(client.post("/v1/admin/promote", json={"version": 2}, headers=once))["live"] == 2
    assert registry.current() == 2
    assert [event.key for event in registry.history()].count("step-1") == 1


COMPACTED = """
import sys
from pathlib import Path
import numpy as np
from disks import Disk
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.types import Space
folder = Path(sys.argv[1])
disk, space = Disk(folder), Space("a", 32, frozenset({"a"}))
vectors = np.random.default_rng(0).normal(size=(2000, 32)).astype(np.float32)
with EmbeddedGallery(folder / "gallery", background=False, seal=64) as gallery:
    gallery.add([f"r{i}" for i in range(2000)], vectors, space)
    for leave in range(0, 90, 10):
        disk.fill(leave)
        try:
            gallery.compact()
        except OSError as error:
            assert error.errno == 28, error
            left = list((folder / "gallery" / "segments").iterdir())
            print(len(gallery.search(vectors[:1], space, 5000)[0]), len(left))
    disk.free()
    gallery.compact()
    print("end", len(gallery.search(vectors[:1], space, 5000)[0]), gallery.stats().segments)
"""


def test_making_a_segment_on_a_full_disk_ends_no_process(tmp_path):
    """Its vectors are written through a mapped file, where a lack of room is a signal that kills; in a process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])}
    with mounted(tmp_path / "disk", "4m") as disk:
        line = [sys.executable, "-c", COMPACTED, str(disk.folder)]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    *refused, end = done.stdout.splitlines()
    assert len(refused) > 3
    assert set(refused) == {"2000 0"}
    assert end == "end 2000 1"
