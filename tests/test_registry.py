"""A registry shows whole, verified versions and one pointer, whoever is killed and whenever."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from lifelong import files
from lifelong.errors import ArtifactError, ConfigError, DataError, LifelongError, NotFound, Refused
from lifelong.labels import LabelMap
from lifelong.models import build
from lifelong.release.events import lineage
from lifelong.release.gate import Check, Report
from lifelong.release.registry import Pointer, Registry
from lifelong.release.snapshot import Snapshot
from lifelong.release.spaces import proof as proven
from lifelong.release.timeline import Timeline
from lifelong.types import Space

YES = Report((Check("finite", True, "fine"),))
NO = Report((Check("finite", True, "fine"), Check("accuracy", False, "too bad", 0.5, 0.9)))


def make(seed=0, **kwargs):
    spec = {
        "backbone": {"name": "mlp", "inputs": [3], "hidden": [], "features": 2},
        "head": {"name": "linear", "classes": 2},
    }
    x = torch.ones(1, 3)
    return Snapshot.of(build(spec, seed=seed), LabelMap(["a", "b"]), probe_x=x, training={"step": seed}, **kwargs)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry", create=True)


def filled(registry, count):
    """Publish versions 1 to `count`."""
    for seed in range(count):
        registry.publish(make(seed))
    return registry


def kinds(registry):
    return [(event.kind, event.version, event.previous, event.pointer) for event in registry.history()]


def tree(registry):
    return sorted(str(path.relative_to(registry.root)) for path in registry.root.rglob("*") if path.name != ".lock")


def test_what_is_published_is_live_and_can_be_loaded(registry):
    made = make()
    assert registry.current() is None
    assert registry.publish(made, YES) == 1
    assert registry.pointer() == Pointer(1, 1)
    assert registry.versions() == [1]
    read = registry.load(1)
    assert read.version == 1
    assert read.space == made.space
    assert all(torch.equal(read.weights[name], made.weights[name]) for name in made.weights)
    assert registry.report(1) == YES
    assert registry.manifest(1)["labels"] == ["a", "b"]
    registry.verify(1)


def test_the_layout_is_the_promised_one(registry):
    """Others (servers on read-only mounts, backups) rely on it; nothing is left beside it."""
    registry.publish(make(), YES)
    parts = [f"versions/000001/{name}.safetensors" for name in ("probe", "weights")]
    parts += [f"versions/000001/{name}.json" for name in ("manifest", "report")]
    folders = ["CURRENT", "events", "events/00000001.json", "versions", "versions/000001"]
    assert tree(registry) == sorted([*folders, *parts])
    assert json.loads((registry.root / "CURRENT").read_text()) == {"version": 1, "seq": 1}
    modes = {oct(path.stat().st_mode & 0o777) for path in (registry.root / "versions/000001").iterdir()}
    assert modes == {"0o644"}


def test_publishing_without_promoting_leaves_the_pointer(registry):
    filled(registry, 1)
    assert registry.publish(make(1), promote=False) == 2
    assert registry.pointer() == Pointer(1, 1)
    assert kinds(registry)[-1] == ("publish", 2, 1, None)
    registry.promote(2, why="looks good")
    assert registry.pointer() == Pointer(2, 2)


def test_publishing_the_same_again_changes_nothing(registry):
    filled(registry, 2)
    before = tree(registry)
    assert registry.publish(make(1), YES) == 2
    assert tree(registry) == before
    assert registry.pointer() == Pointer(2, 2)


def test_the_same_content_with_another_parent_is_the_same(registry):
    """The trainer was killed after the pointer moved: its repeated step now has its own version as parent."""
    filled(registry, 1)
    assert registry.publish(make(0, parent=1, metrics={"a": 1.0})) == 1


def test_the_same_content_that_reads_more_is_a_new_version(registry):
    filled(registry, 1)
    proof = proven(Space("old", 4), 0.5, 0.4, "recall_at_1", 10, "")
    assert registry.publish(make(0).with_proofs([proof])) == 2
    assert registry.publish(make(0)) == 2  # reads less than version 2 does: nothing new


def test_only_the_newest_version_is_compared(registry):
    """Going back to old weights on purpose is a new version."""
    filled(registry, 2)
    assert registry.publish(make(0)) == 3


def test_a_repeated_publish_does_not_undo_a_rollback(registry):
    filled(registry, 2)
    registry.rollback()
    assert registry.publish(make(1)) == 2
    assert registry.current() == 1


def test_a_repeated_publish_promotes_what_was_only_stored(registry):
    filled(registry, 1)
    registry.publish(make(1), promote=False)
    assert registry.publish(make(1)) == 2
    assert registry.current() == 2


def test_a_damaged_newest_version_is_published_anew(registry):
    filled(registry, 1)
    (registry.root / "versions/000001/weights.safetensors").write_bytes(b"")
    assert registry.publish(make(0)) == 2
    registry.verify(2)


def test_what_the_gate_refused_is_not_published(registry):
    with pytest.raises(Refused, match="too bad"):
        registry.publish(make(), NO)
    assert registry.versions() == []
    assert registry.history() == []


def test_what_does_not_verify_gets_no_number(registry):
    made = make()
    bad = replace(made, weights={name: tensor * float("nan") for name, tensor in made.weights.items()})
    with pytest.raises(ArtifactError, match="not finite"):
        registry.publish(bad)
    assert tree(registry) == ["events", "versions"]


def test_a_refusal_is_told_with_its_reasons_and_nothing_else(registry):
    filled(registry, 1)
    registry.refuse(make(5), NO)
    event = registry.history()[-1]
    assert (event.seq, event.kind, event.version, event.previous) == (2, "refuse", None, 1)
    assert (event.who, event.why, event.report) == ("trainer", "too bad (step=5)", NO)
    assert registry.versions() == [1]
    assert registry.pointer() == Pointer(1, 1)


def test_history_tells_who_did_what_and_why(registry):
    filled(registry, 2)
    registry.promote(1, "alice", "check")
    registry.rollback(2, "bob", "worse")
    assert kinds(registry) == [
        ("publish", 1, None, 1),
        ("publish", 2, 1, 2),
        ("promote", 1, 2, 3),
        ("rollback", 2, 1, 4),
    ]
    assert [event.seq for event in registry.history()] == [1, 2, 3, 4]
    assert [(event.who, event.why) for event in registry.history()[2:]] == [("alice", "check"), ("bob", "worse")]
    assert all(event.time.endswith("+00:00") for event in registry.history())


def test_rolling_back_twice_goes_back_twice(registry):
    filled(registry, 3)
    assert registry.rollback() == 2
    assert registry.rollback() == 1
    assert registry.pointer() == Pointer(1, 5)
    with pytest.raises(ConfigError, match="no version was live before"):
        registry.rollback()
    assert registry.current() == 1


def test_the_same_key_moves_the_pointer_once(registry):
    """However often it comes, also to another process; what others did in between stays."""
    filled(registry, 3)
    assert [registry.rollback(key="a"), Registry(registry.root).rollback(key="a")] == [2, 2]
    assert registry.pointer() == Pointer(2, 4)
    registry.promote(3, key="b")
    registry.promote(1)
    registry.promote(3, key="b")
    assert registry.rollback(key="a") == 2
    assert registry.pointer() == Pointer(1, 6)
    assert [event.key for event in registry.history()] == ["", "", "", "a", "b", ""]
    assert (registry.done("a").previous, registry.done("a").pointer, registry.done("c")) == (3, 4, None)
    assert '"key"' not in (registry.root / "events" / "00000001.json").read_text()  # read by what knows no keys
    for wrong in (lambda: registry.promote(2, key="a"), lambda: registry.rollback(1, key="a")):
        with pytest.raises(DataError, match="used before, to rollback version 2"):
            wrong()


def test_a_repeated_call_completes_what_was_cut_off(registry, monkeypatch):
    """Its event was written, the pointer was not; after another change it is too late."""
    filled(registry, 3)

    def cut(path, data):
        raise Killed

    for key in ("a", "b"):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(files, "write_atomic", cut)
            registry.rollback(1, key=key)
        assert registry.pointer().version == 3
        if key == "b":
            registry.promote(3)
        assert registry.rollback(1, key=key) == 1
        assert registry.current() == (1 if key == "a" else 3)
        registry.promote(3)


def test_one_key_from_many_sides_at_once_is_one_step(registry):
    """Workers that got the same call."""
    filled(registry, 3)
    sides = [threading.Thread(target=Registry(registry.root).rollback, kwargs={"key": "a"}) for _ in range(4)]
    for side in sides:
        side.start()
    for side in sides:
        side.join()
    assert registry.pointer() == Pointer(2, 4)


def test_rolling_back_leaves_out_what_was_never_live(registry):
    filled(registry, 1)
    registry.publish(make(1), promote=False)
    registry.publish(make(2))
    assert registry.rollback() == 1


def test_rolling_back_an_empty_registry_is_refused(registry):
    with pytest.raises(ConfigError, match="no version was live"):
        registry.rollback()


def test_lineage_by_hand(registry):
    """Live: 1 2 3, back to 1, then 3 again, and 3 once more."""
    filled(registry, 3)
    registry.rollback(1)
    registry.promote(3)
    registry.promote(3)
    assert lineage(registry.history()) == [1, 3]


def test_a_damaged_version_is_not_made_live(registry):
    filled(registry, 2)
    (registry.root / "versions/000001/weights.safetensors").write_bytes(b"")
    for act in (registry.promote, registry.rollback):
        with pytest.raises(ArtifactError, match=r"000001/weights\.safetensors"):
            act(1)
    assert registry.pointer() == Pointer(2, 2)
    assert len(registry.history()) == 2


def test_a_damaged_report_is_told(registry):
    registry.publish(make(), YES)
    registry.publish(make(1))
    assert registry.report(2) is None
    (registry.root / "versions/000001/report.json").write_text("{}")
    for act in (registry.report, registry.verify):
        with pytest.raises(ArtifactError, match=r"report\.json"):
            act(1)


def test_a_version_that_is_not_there_is_not_found(registry):
    filled(registry, 2)
    for act in (registry.load, registry.manifest, registry.report, registry.verify, registry.promote):
        with pytest.raises(NotFound, match=r"no version 7 .* 2, from 1 to 2"):
            act(7)


def test_a_number_is_never_used_again(registry):
    """A server may still know the version that somebody deleted."""
    filled(registry, 2)
    shutil.rmtree(registry.root / "versions/000002")
    assert registry.publish(make(5)) == 3


def test_a_pointer_to_a_deleted_version_says_so(registry):
    filled(registry, 2)
    shutil.rmtree(registry.root / "versions/000002")
    with pytest.raises(NotFound, match=r"version 2, which is not there.*lifelong registry promote"):
        registry.current()
    registry.promote(1)
    assert registry.pointer() == Pointer(1, 3)


BAD = [b"", b"garbage", b"\xff\xfe", b"2", b"[]", b"null", b'{"version":2}', b'{"version":"2","seq":1}']
BAD += [b'{"version":%s}' % rest for rest in (b'0,"seq":1', b'true,"seq":1', b'2.0,"seq":1', b'2,"seq":1,"odd":1')]


@pytest.mark.parametrize("content", BAD)
def test_a_damaged_pointer_says_what_to_do_and_promote_repairs_it(registry, content):
    """The sequence goes on where the events say it was."""
    filled(registry, 2)
    (registry.root / "CURRENT").write_bytes(content)
    for act in (registry.current, registry.pointer):
        with pytest.raises(ArtifactError, match="lifelong registry promote"):
            act()
    registry.promote(1)
    assert registry.pointer() == Pointer(1, 3)


def test_a_folder_in_place_of_the_pointer_is_told(registry):
    filled(registry, 1)
    (registry.root / "CURRENT").unlink()
    (registry.root / "CURRENT").mkdir()
    with pytest.raises(ArtifactError, match="CURRENT"):
        registry.current()
    with pytest.raises(ArtifactError, match="is a folder"):
        registry.promote(1)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"seq":1}', b'{"report":null,"seq":1}'])
def test_a_damaged_event_is_told(registry, content):
    filled(registry, 1)
    (registry.root / "events/00000001.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"00000001\.json is damaged"):
        registry.history()


def test_opening_what_is_not_there_says_what_to_do_and_makes_nothing(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(NotFound, match=r"no registry .* lifelong train --registry"):
            Registry(path)
    assert list(tmp_path.iterdir()) == []


def test_reading_writes_nothing(registry):
    """A server's mount may be read-only."""
    filled(registry, 2)
    before = {path: path.stat().st_mtime_ns for path in registry.root.rglob("*")}
    reader = Registry(str(registry.root))
    reader.load(reader.current())
    reader.history(), reader.versions(), reader.verify(1), reader.report(1), reader.manifest(2)
    assert {path: path.stat().st_mtime_ns for path in registry.root.rglob("*")} == before


def test_writing_to_a_read_only_mount_is_refused_in_one_line(registry, monkeypatch):
    filled(registry, 2)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    for act in (
        lambda: registry.publish(make(3)),
        lambda: registry.promote(1),
        lambda: registry.rollback(),
        lambda: registry.refuse(make(3), NO),
    ):
        with pytest.raises(ConfigError, match="cannot be written"):
            act()


class Killed(BaseException):
    """Stands for kill -9: nothing in the code catches it."""


STEPS = ["write_new", "commit_folder", "create_exclusive", "write_atomic", "sync"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 6))])
@pytest.mark.slow
def test_a_publish_cut_off_at_any_step_is_completed_by_the_next(registry, monkeypatch, step, after, nth):
    """Before or after the nth call of each step that touches the disk; the reader sees version 1 or 2, whole."""
    filled(registry, 1)
    calls = iter(range(100))
    real = getattr(files, step)

    def cut(*args):
        mine = next(calls) == nth
        if mine and not after:
            raise Killed
        real(*args)
        if mine:
            raise Killed

    for module in (files, sys.modules["lifelong.release.events"]):
        monkeypatch.setattr(module, step, cut, raising=False)
    with suppress(Killed):
        registry.publish(make(1), YES)
    monkeypatch.undo()
    seen = registry.pointer()
    assert seen in (Pointer(1, 1), Pointer(2, 2))
    for version in registry.versions():
        registry.verify(version)
    assert registry.publish(make(1), YES) == 2
    assert registry.pointer() == Pointer(2, 2)
    assert registry.versions() == [1, 2]
    assert [event.version for event in registry.history() if event.kind == "publish"] == [1, 2]


def test_a_promotion_that_was_cut_off_takes_its_number_with_it(registry, monkeypatch):
    """Its event says seq 3; the next change must not say 3 again for another version."""
    filled(registry, 2)

    def cut(path, data):
        raise Killed

    monkeypatch.setattr(files, "write_atomic", cut)
    with pytest.raises(Killed):
        registry.promote(1)
    monkeypatch.undo()
    assert registry.pointer() == Pointer(2, 2)
    registry.promote(1)
    assert registry.pointer() == Pointer(1, 4)


def test_who_moves_the_pointer_waits_for_who_is_moving_it(registry):
    """Readers do not wait."""
    filled(registry, 2)
    other = threading.Thread(target=Registry(registry.root).promote, args=(1,))
    with Timeline(registry.root).writing():
        other.start()
        other.join(0.5)
        assert other.is_alive()
        assert registry.pointer() == Pointer(2, 2)
    other.join()
    assert registry.pointer() == Pointer(1, 3)


def test_publishers_at_once_get_different_numbers(registry):
    """Four threads, each with its own registry object and its own content."""
    numbers = []

    def work(first):
        own = Registry(registry.root)
        numbers.extend(own.publish(make(first * 100 + i)) for i in range(4))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(numbers) == registry.versions() == list(range(1, 17))
    assert [event.seq for event in registry.history()] == list(range(1, 17))
    assert [event.pointer for event in registry.history()] == list(range(1, 17))
    assert registry.pointer() == Pointer(registry.history()[-1].version, 16)


def test_events_are_numbered_without_a_lock_too(registry):
    """Refusals take no lock: the file name decides who was first."""
    threads = [threading.Thread(target=registry.refuse, args=(make(i), NO)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [event.seq for event in registry.history()] == list(range(1, 9))
    assert len({event.why for event in registry.history()}) == 8


def test_a_number_taken_by_a_writer_that_knows_no_lock_is_left_to_it(registry, monkeypatch):
    filled(registry, 1)
    commit = files.commit_folder

    def late(folder, final):
        if final.name == "000002":
            shutil.copytree(registry.root / "versions/000001", final)
        commit(folder, final)

    monkeypatch.setattr(files, "commit_folder", late)
    assert registry.publish(make(1)) == 3


@pytest.mark.slow
def test_a_reader_never_sees_half_a_version(registry):
    """What is listed verifies, and what the pointer names is there, at any moment while others write."""
    done, errors = threading.Event(), []

    def read():
        reader, last = Registry(registry.root), 0
        while not done.is_set():
            try:
                pointer = reader.pointer()
                if pointer is not None:
                    assert pointer.seq >= last
                    last = pointer.seq
                    reader.verify(pointer.version)
                for version in reader.versions()[-2:]:
                    reader.verify(version)
            except (AssertionError, LifelongError, OSError) as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(2)]
    [thread.start() for thread in threads]
    for seed in range(8):
        registry.publish(make(seed))
        registry.promote(max(1, seed // 2))
    done.set()
    [thread.join() for thread in threads]
    assert errors == []


PUBLISHES = """
import os, sys
import torch
from lifelong.labels import LabelMap
from lifelong.models import build
from lifelong.release.registry import Registry
from lifelong.release.snapshot import Snapshot

def tell(word):
    os.write(1, f"{word}\\n".encode())  # at once, whole

def make(step, live):
    head = {"name": "linear", "classes": 2}
    spec = {"backbone": {"name": "mlp", "inputs": [3], "hidden": [], "features": 2}, "head": head}
    x = torch.ones(1, 3)
    return Snapshot.of(build(spec, seed=step), LabelMap("ab"), probe_x=x, parent=live, training={"step": step})

def publish(step):
    tell(os.getpid())
    registry = Registry(sys.argv[1], create=True)
    while True:
        registry.publish(make(step, registry.current()))
        tell(step)
        step += 1

make(0, None).build()  # one start of torch for all trainers
for line in sys.stdin:
    if (pid := os.fork()) == 0:
        publish(int(line))
    os.waitpid(pid, 0)
    tell("dead")
"""


def kill_a_publisher(nursery, step, steps, seconds):
    """Start one at `step`, wait until it told `steps` steps, then kill -9 after `seconds`; return its next step."""
    nursery.stdin.write(f"{step}\n")
    nursery.stdin.flush()
    pid = int(nursery.stdout.readline())
    for _ in range(steps):
        step = int(nursery.stdout.readline()) + 1
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    for line in iter(nursery.stdout.readline, "dead\n"):
        step = int(line) + 1
    return step


@pytest.mark.e2e
def test_kill_9_while_publishing_loses_nothing_and_repeats_nothing(tmp_path):
    """Twenty times: a trainer publishes in a loop, is killed at random, and resumes from its last told step."""
    draw, root, step, cut = random.Random(0), tmp_path / "registry", 0, 0
    command = [sys.executable, "-c", PUBLISHES, str(root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env={**os.environ, "OMP_NUM_THREADS": "1"}) as nursery:
        for _ in range(20):
            step = kill_a_publisher(nursery, step, draw.randint(1, 2), draw.uniform(0, 0.03))
            registry = Registry(root)
            cut += bool(list(root.rglob(f"{files.PREFIX}*")))
            for version in registry.versions():
                registry.verify(version)
            done = [registry.manifest(version)["training"]["step"] for version in registry.versions()]
            assert done == list(range(len(done)))  # each step once, in order, none missing
            assert len(done) in (step, step + 1)  # what was told, or one more
            assert registry.current() in (len(done), len(done) - 1)
        nursery.stdin.close()
    assert cut > 0  # some were killed in the middle of writing
    assert registry.publish(make(1000)) == len(done) + 1
    assert not list(root.rglob(f"{files.PREFIX}*"))  # what the killed left is gone
    moved = [event.pointer for event in registry.history() if event.pointer]
    assert moved == list(range(1, len(moved) + 1))
