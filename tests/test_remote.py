"""A registry in a store: what was published there is what is served, and nobody sees half of a version."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numbered
import pytest
import streams
from click.testing import CliRunner

from lifelong import files
from lifelong.cli import cli
from lifelong.errors import ConfigError, Locked, NotFound, Unavailable
from lifelong.release.locate import is_remote, locate
from lifelong.release.registry import Registry
from lifelong.release.remote import Remote
from serving.following import Following


@pytest.fixture
def memory(tmp_path):
    """A store in this process, empty before and after."""
    import fsspec

    store = fsspec.filesystem("memory")
    name = f"memory://{tmp_path.name}"
    yield name
    if store.exists(name):
        store.rm(name, recursive=True)


def round_trip(where, tmp_path):
    """Published through one copy, read, rolled back and published again through another."""
    one = locate(where, create=True, copy=tmp_path / "one")
    assert [one.publish(numbered.numbered(n)) for n in (1, 2)] == [1, 2]
    two = locate(where, copy=tmp_path / "two")
    assert (two.versions(), two.current()) == ([1, 2], 2)
    for version in (1, 2):
        assert two.manifest(version) == one.manifest(version)
        two.verify(version)
    assert two.rollback(who="ann", why="too bold") == 1
    three = locate(where, copy=tmp_path / "three")
    assert three.current() == 1
    assert [(e.kind, e.version, e.who) for e in three.history()][-1] == ("rollback", 1, "ann")
    assert one.publish(numbered.numbered(3)) == 3  # it pulls before it writes: the rollback is in its history too
    assert [e.kind for e in locate(where, copy=tmp_path / "three").history()] == [
        "publish",
        "publish",
        "rollback",
        "publish",
    ]
    (tmp_path / "three" / "versions" / "000003" / "weights.safetensors").unlink()
    assert Registry(tmp_path / "two").current() == 1


def test_what_is_published_to_a_store_is_read_from_it(memory, tmp_path):
    round_trip(memory, tmp_path)


@pytest.mark.slow
def test_the_same_in_an_s3_on_loopback(s3, tmp_path):
    round_trip(f"{s3}/registry/of/ours", tmp_path)


def test_a_local_address_is_an_ordinary_registry(tmp_path):
    locate(f"file://{tmp_path}/registry", create=True).publish(numbered.numbered(1))
    assert Registry(tmp_path / "registry").current() == 1
    assert not is_remote(f"file://{tmp_path}")
    assert is_remote("s3://a/b")


def test_a_store_without_a_registry_a_foreign_kind_and_a_dead_store_are_said(memory, tmp_path):
    with pytest.raises(NotFound, match="there is no registry in memory://"):
        locate(memory, copy=tmp_path / "copy")
    with pytest.raises(Unavailable, match="nosuch"):
        locate("nosuch://a/b", copy=tmp_path / "other")


def pieces(folder):
    """The writes of a push in their order: a killed one leaves any first part of them."""
    written = []
    remote = Remote("memory://unused", folder)
    remote._names, remote._put = list, lambda name, data: written.append((name, data))
    remote._contradiction = lambda there: ""
    remote.push()
    return written


@pytest.mark.slow
def test_a_push_that_is_cut_off_anywhere_leaves_whole_versions_and_the_next_one_completes_it(memory, tmp_path):
    local = Registry(tmp_path / "local", create=True)
    local.publish(numbered.numbered(1))
    shutil.copytree(tmp_path / "local", tmp_path / "first")
    local.publish(numbered.numbered(2))
    before, after = pieces(tmp_path / "first"), pieces(tmp_path / "local")
    assert after[-1][0] == "CURRENT"
    done = dict(before)
    for count in range(len(after) + 1):
        store = Remote(f"{memory}/{count}", tmp_path / f"copy-{count}")
        for name, data in [
            *before,
            *[piece for piece in after[:count] if piece[0] not in done or piece[0] == "CURRENT"],
        ]:
            store._put(name, data)
        store.pull()
        copy = Registry(tmp_path / f"copy-{count}", remote=store)
        for version in copy.versions():
            copy.verify(version)
        assert copy.current() == (2 if count == len(after) else 1)
        assert copy.publish(numbered.numbered(2)) == 2
        again = locate(f"{memory}/{count}", copy=tmp_path / f"again-{count}")
        assert again.current() == 2
        again.verify(2)


def test_a_damaged_version_is_left_out_and_the_copy_stays(memory, tmp_path, caplog):
    one = locate(memory, create=True, copy=tmp_path / "one")
    one.publish(numbered.numbered(1))
    copy = Remote(memory, tmp_path / "two")
    assert copy.pull()
    one.publish(numbered.numbered(2))
    name = "versions/000002/weights.safetensors"
    copy._put(name, copy._get(name)[:-1] + b"\x07")
    with pytest.raises(NotFound, match="names version 2, which is not there or not whole"):
        copy.pull()
    assert "version 000002 of memory://" in caplog.text
    assert Registry(tmp_path / "two").current() == 1


def test_two_writers_at_once_are_told_and_nothing_is_overwritten(memory, tmp_path, monkeypatch):
    one = locate(memory, create=True, copy=tmp_path / "one")
    one.publish(numbered.numbered(1))
    two = locate(memory, copy=tmp_path / "two")
    monkeypatch.setattr(Remote, "pull", lambda self: False)  # it looked just before the other one wrote
    one.publish(numbered.numbered(2))
    with pytest.raises(Locked, match="somebody else wrote"):
        two.publish(numbered.numbered(3))
    monkeypatch.undo()
    assert two.publish(numbered.numbered(3)) == 3
    assert locate(memory, copy=tmp_path / "three").versions() == [1, 2, 3]


def test_a_copy_is_not_written_as_if_it_were_the_registry(memory, tmp_path):
    locate(memory, create=True, copy=tmp_path / "one").publish(numbered.numbered(1))
    with pytest.raises(ConfigError, match="is a copy of memory://"):
        Registry(tmp_path / "one").promote(1)


def test_a_server_follows_a_store_and_serves_on_when_it_is_gone(memory, tmp_path, monkeypatch, caplog):
    registry = locate(memory, create=True, copy=tmp_path / "one")
    following = Following(memory, tmp_path / "served", 0.01)
    gone, looked, pull = threading.Event(), threading.Semaphore(0), Remote.pull

    def sometimes(self):
        if self.folder != tmp_path / "served":
            return pull(self)
        looked.release()
        if gone.is_set():
            raise Unavailable("the store is gone")
        return pull(self)

    monkeypatch.setattr(Remote, "pull", sometimes)
    following.start()
    try:
        for version in (1, 2):
            registry.publish(numbered.numbered(version))
            for _ in range(2):
                assert looked.acquire(timeout=30)
            while files.signature(tmp_path / "served" / "CURRENT") is None:
                assert looked.acquire(timeout=30)
        gone.set()
        while looked.acquire(blocking=False):  # looks that were before
            pass
        for _ in range(5):
            assert looked.acquire(timeout=30)
    finally:
        following.stop()
    assert caplog.text.count("the store is gone; serving what is here") == 1
    served = Registry(tmp_path / "served")
    served.verify(served.current())


def run(*words):
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@pytest.mark.slow
def test_the_commands_take_addresses(memory, tmp_path, monkeypatch):
    """A trainer publishes to a store, and an operator looks and rolls back there, from a home of their own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    log = streams.log(tmp_path / "log", streams.samples(160))
    line = [
        "train",
        "--source",
        log,
        "--run",
        tmp_path / "run",
        "--registry",
        memory,
        "--batch-size",
        8,
        "--allow-major",
    ]
    line += ["--follow", "until=end", "--follow", "publish_samples=60", "--max-accuracy-drop", 1, "--max-forgetting", 1]
    run(*line)
    assert "publish" in run("registry", "list", memory)
    assert "is live again" in run("registry", "rollback", memory, "--why", "try")
    assert "identical" in run("replay", "--registry", memory, "--version", 1, "--source", log)
    assert "ok" in run("registry", "verify", memory)
    assert list(Path(tmp_path / ".cache" / "lifelong").iterdir())
