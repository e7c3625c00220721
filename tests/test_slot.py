"""The slot: what goes live, what does not, and what a restart finds."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lifelong.errors import Behind, Locked, Unavailable
from lifelong.release.snapshot import Snapshot
from lifelong.release.spaces import proof
from serving.live import Live
from serving.shelf import Shelf
from serving.slot import LAST_GOOD, Slot


class Seen:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def swapped(self, outcome: str, seconds: float) -> None:
        self.outcomes.append(outcome)

    def polled(self) -> None:
        """Not of interest here."""


@pytest.fixture
def shelf(tmp_path):
    found = Shelf(tmp_path / "state" / "gallery")
    yield found
    found.close()


@pytest.fixture
def slot(registry, shelf, tmp_path):
    """A slot whose watcher does not run: each test says when to look."""
    return opened(registry, shelf, tmp_path)


def opened(registry, shelf, tmp_path, **options):
    slot = Slot(registry.root, shelf, tmp_path / "state", Seen(), poll_seconds=3600, **options)
    slot.start()
    slot.stop()
    return slot


def number(live: Live) -> int:
    """The number that the model itself was made with."""
    return round(float(live.embed(np.zeros((1, 4), np.float32))[0, 0]))


def rejected(slot: Slot) -> dict[int | None, str]:
    return {each.version: each.reason for each in slot.rejected}


def part(registry, version: int, name: str) -> Path:
    return registry.root / "versions" / f"{version:06d}" / name


def point(registry, version: object, seq: int = 99) -> None:
    """Move the pointer past all checks of the registry, as a careless script would."""
    (registry.root / "CURRENT.new").write_text(json.dumps({"version": version, "seq": seq}))
    (registry.root / "CURRENT.new").replace(registry.root / "CURRENT")


def test_the_pointer_is_followed(slot, registry, kit):
    """Publish, and one look later the new version answers; the old one is retired."""
    for n in (1, 2):
        assert registry.publish(kit.numbered(n)) == n
        assert slot.refresh()
        assert (slot.version, number(slot.live)) == (n, n)

    assert slot.retired == [1]
    assert slot.observer.outcomes == ["live", "live"]


def test_a_swap_says_what_its_time_went_into(slot, registry, kit):
    """The phases are parts of the whole; going back to what is still in memory has none but the flip."""
    for n in (1, 2):
        registry.publish(kit.numbered(n))
        slot.refresh()
    registry.rollback()
    slot.refresh()
    back, second, _ = slot.swaps

    assert list(second.phases) == ["fetch", "build", "warm", "flip"]
    assert 0 < sum(second.phases.values()) <= second.seconds
    assert (back.version, back.outcome, list(back.phases)) == (1, "rollback", ["flip"])


def spoiled(registry, kit, case: str) -> None:
    """Make version 2 live in the registry, and bad."""
    bad = {"labels": {"labels": ["bee", "ant"]}, "input": {"inputs": 5}}.get(case, {})
    registry.publish(kit.numbered(2, **bad))
    folder = registry.root / "versions" / "000002"
    if case == "fetch":
        flipped(folder / "weights.safetensors")
    elif case == "build":
        kit.forge_nan(folder)
    elif case == "pointer":
        (registry.root / "CURRENT").write_text("nonsense")


@pytest.mark.parametrize("case", ["pointer", "fetch", "build", "labels", "input", "compatibility"])
def test_a_rejection_names_its_gate(slot, shelf, registry, kit, case):
    """Each way to be bad is refused by the step that looks for it, and by no other."""
    registry.publish(kit.numbered(1))
    slot.refresh()
    if case == "compatibility":
        slot.add(["a"], np.ones((1, 4), np.float32), None)
    spoiled(registry, kit, case)
    slot.refresh()

    assert [each.gate for each in slot.rejected] == [case]
    assert slot.version == 1


def test_looking_again_changes_nothing(slot, registry, kit):
    """An unchanged pointer costs one stat and no load."""
    registry.publish(kit.numbered(1))
    slot.refresh()
    live = slot._live

    assert not slot.refresh()
    assert slot._live is live


def test_nothing_live_says_why(slot, registry):
    """Before the first version, a request is told what to do."""
    with pytest.raises(Unavailable, match="nothing is live yet; publish"):
        _ = slot.live


def test_a_registry_may_come_later(shelf, tmp_path, kit):
    """The server may be started before the trainer has made the registry."""
    from lifelong.release.registry import Registry

    slot = Slot(tmp_path / "later", shelf, tmp_path / "state", Seen(), poll_seconds=3600)
    slot.start()
    slot.stop()
    assert not slot.refresh()
    Registry(tmp_path / "later", create=True).publish(kit.numbered(1))

    assert slot.refresh()
    assert slot.version == 1


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(200))


@pytest.mark.parametrize("name", ["weights.safetensors", "probe.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", [flipped, truncated, emptied, removed, garbage])
@pytest.mark.slow
def test_a_damaged_file_changes_nothing(slot, registry, kit, caplog, damage, name):
    """Refused once: one log line, one count, a reason that names the file; the live version answers on."""
    kit.publish(registry, 2)
    registry.promote(1)
    slot.refresh()
    damage(part(registry, 2, name))
    point(registry, 2)
    caplog.clear()

    with caplog.at_level(logging.INFO, logger="lifelong.serving"):
        assert not slot.refresh()

    assert (slot.version, number(slot.live)) == (1, 1)
    assert name in rejected(slot)[2]
    assert slot.observer.outcomes == ["live", "rejected"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_weights_that_are_nan_under_right_checksums_are_refused(slot, registry, kit):
    """Checksums say who wrote it, not that it is any good."""
    kit.publish(registry, 2)
    registry.promote(1)
    slot.refresh()
    kit.forge_nan(registry.root / "versions" / "000002")
    point(registry, 2)

    assert not slot.refresh()
    assert "finite" in rejected(slot)[2]
    assert slot.version == 1


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (("ant", "cat", "bee"), "index 1 meant 'bee' and would mean 'cat'"),
        (("ant", "bee"), "index 2 meant 'cat' and would mean nothing"),
        (("ant", "bee", "dog", "cat"), "index 2 meant 'cat' and would mean 'dog'"),
    ],
)
def test_labels_may_only_be_appended(slot, registry, kit, labels, hint):
    """Column i must not change its meaning for clients that remember it."""
    first = kit.numbered(1)
    registry.publish(first)
    slot.refresh()
    registry.publish(kit.numbered(2, labels=labels, reads=[first]))

    assert not slot.refresh()
    assert hint in rejected(slot)[2]
    assert slot.version == 1


def test_appended_labels_are_let_in(slot, registry, kit):
    """The point of continual learning."""
    first = kit.numbered(1)
    registry.publish(first)
    slot.refresh()
    registry.publish(kit.numbered(2, labels=(*kit.labels, "dog"), reads=[first]))

    assert slot.refresh()
    assert slot.live.labels == (*kit.labels, "dog")


def test_another_input_shape_is_refused(slot, registry, kit):
    """Clients would have to change what they send."""
    registry.publish(kit.numbered(1))
    slot.refresh()
    registry.publish(kit.numbered(2, inputs=5))

    assert not slot.refresh()
    assert "input shape is [5], clients send [4]" in rejected(slot)[2]


def test_rows_must_stay_readable(slot, registry, kit):
    """A version that does not read the gallery's spaces would make old rows vanish without a word."""
    first = kit.numbered(1)
    registry.publish(first)
    slot.refresh()
    slot.add(["a"], np.ones((1, 4), np.float32), None)
    registry.publish(kit.numbered(2))
    assert not slot.refresh()
    assert first.space.id in rejected(slot)[2]
    registry.publish(kit.numbered(3, reads=[first]))

    assert slot.refresh()
    assert [hit.id for hit in slot.live.search(slot.live.embed(np.ones((1, 4), np.float32)), 5, None)[0]] == ["a"]


def test_without_rows_any_space_may_follow(slot, registry, kit):
    """Who does not use the gallery is not bound by it."""
    registry.publish(kit.numbered(1))
    slot.refresh()
    registry.publish(kit.numbered(2))

    assert slot.refresh()


def test_what_did_not_fit_is_tried_again_when_promoted_again(slot, registry, kit):
    """The rows were in the way and are gone now: the operator's second promotion works without a restart."""
    registry.publish(kit.numbered(1))
    slot.refresh()
    slot.add(["a"], np.ones((1, 4), np.float32), None)
    registry.publish(kit.numbered(2))
    assert not slot.refresh()
    slot.shelf.remove(["a"])
    assert not slot.refresh()  # not by itself
    registry.promote(2)

    assert slot.refresh()
    assert slot.version == 2


def test_what_is_broken_is_never_tried_twice(slot, registry, kit, monkeypatch):
    """The same number with the same manifest is not loaded again, however often the pointer names it."""
    kit.publish(registry, 2)
    registry.promote(1)
    slot.refresh()
    flipped(part(registry, 2, "weights.safetensors"))
    loads = []
    load = type(registry).load
    monkeypatch.setattr(type(registry), "load", lambda self, n, **how: loads.append(n) or load(self, n, **how))
    for seq in range(100, 105):
        point(registry, 2, seq)
        slot.refresh()

    assert loads == [2]
    assert slot.observer.outcomes == ["live", "rejected"]


def test_a_version_is_built_once_to_go_live(slot, registry, kit, monkeypatch):
    """Building checks it against its probe; a second model would cost as much again."""
    built, build = [], Snapshot.build
    monkeypatch.setattr(Snapshot, "build", lambda self: built.append(self.version) or build(self))
    kit.publish(registry, 2)
    registry.promote(2)
    built.clear()
    slot.refresh()

    assert slot.version == 2
    assert built == [2]


def test_a_repaired_manifest_is_other_content(slot, registry, kit):
    """Refusal is by content: the same number with another manifest gets its chance."""
    kit.publish(registry, 2)
    registry.promote(1)
    slot.refresh()
    whole = part(registry, 2, "manifest.json").read_bytes()
    flipped(part(registry, 2, "manifest.json"))
    point(registry, 2, 100)
    assert not slot.refresh()
    part(registry, 2, "manifest.json").write_bytes(whole)
    point(registry, 2, 101)

    assert slot.refresh() or (slot.version == 2)


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "7", "{}", '{"version": "x", "seq": 1}', '{"version": -1, "seq": 1}', '{"version": 1}', "\0"],
)
@pytest.mark.slow
def test_a_garbage_pointer_changes_nothing(slot, registry, kit, text):
    """Refused like a bad artifact; a good pointer afterwards is followed."""
    kit.publish(registry, 2)
    registry.promote(1)
    slot.refresh()
    (registry.root / "CURRENT").write_text(text)

    assert not slot.refresh()
    assert slot.version == 1
    assert slot.observer.outcomes == ["live", "rejected"]
    registry.promote(2)
    assert slot.refresh()
    assert slot.version == 2


def test_a_deleted_pointer_changes_nothing(slot, registry, kit):
    """What is live stays live."""
    registry.publish(kit.numbered(1))
    slot.refresh()
    (registry.root / "CURRENT").unlink()

    assert not slot.refresh()
    assert slot.version == 1


def test_a_pointer_that_comes_before_its_version_is_followed_later(slot, registry, kit, caplog):
    """A network mount may show files late: complain once, look again."""
    kit.publish(registry, 2)
    registry.promote(1)
    slot.refresh()
    folder = registry.root / "versions" / "000002"
    folder.rename(registry.root / "hidden")
    point(registry, 2)
    caplog.clear()
    with caplog.at_level(logging.ERROR, logger="lifelong.serving"):
        for _ in range(5):
            assert not slot.refresh()
    assert len(caplog.records) == 1
    (registry.root / "hidden").rename(folder)

    assert slot.refresh()
    assert slot.version == 2


def test_a_rollback_reuses_what_is_in_memory(slot, registry, kit):
    """It works even if the old version's files are gone, and fewer labels are in order."""
    first = kit.numbered(1)
    registry.publish(first)
    slot.refresh()
    model = slot.live.model
    registry.publish(kit.numbered(2, labels=(*kit.labels, "dog"), reads=[first]))
    slot.refresh()
    part(registry, 1, "weights.safetensors").unlink()
    point(registry, 1)

    assert slot.refresh()
    assert slot.live.model is model
    assert slot.observer.outcomes == ["live", "live", "rollback"]


def test_a_rollback_hides_newer_rows_and_says_so(slot, registry, kit):
    """An emergency brake must work; rows of the newer space are kept, named, and found again later."""
    made = kit.publish(registry, 2)
    for n in (1, 2):
        registry.promote(n)
        slot.refresh()
    slot.add(["new"], np.ones((1, 4), np.float32), None)
    registry.rollback()
    slot.refresh()
    query = slot.live.embed(np.ones((1, 4), np.float32))

    assert slot.version == 1
    assert slot.live.unreadable() == [made[1].space.id]
    assert slot.live.search(query, 5, None) == [[]]
    registry.promote(2)
    slot.refresh()
    assert [hit.id for hit in slot.live.search(query, 5, None)[0]] == ["new"]


def test_after_a_rollback_the_next_version_need_not_read_what_was_rolled_back(slot, registry, kit):
    """Rows of a bad version, hidden by its rollback, must not keep out every later one; they stay counted."""
    made = kit.publish(registry, 2)
    for n in (1, 2):
        registry.promote(n)
        slot.refresh()
    slot.add(["new"], np.ones((1, 4), np.float32), None)
    registry.rollback()
    slot.refresh()
    registry.publish(kit.numbered(3, reads=made[:1]))

    assert slot.refresh()
    assert slot.live.unreadable() == [made[1].space.id]


def test_a_rollback_reads_newer_rows_where_the_newer_version_proved_it(slot, registry, kit):
    """One stationary interface: vectors written by either are found by both, from memory and after a restart alike."""
    first = kit.numbered(1)
    registry.publish(first)
    slot.refresh()
    second = kit.numbered(2, reads=[first])
    back = proof(first.space, 0.9, 0.5, "map", 9, "")
    registry.publish(replace(second, read_by=(back,)))
    slot.refresh()
    slot.add(["new"], np.ones((1, 4), np.float32), None)
    registry.rollback()
    slot.refresh()
    query = slot.live.embed(np.ones((1, 4), np.float32))

    assert (slot.version, slot.live.unreadable()) == (1, [])
    assert [hit.id for hit in slot.live.search(query, 5, None)[0]] == ["new"]
    assert registry.load(1).space.reads == slot.live.space.reads == {first.space.id, second.space.id}
    assert registry.load(1).proofs == ({**back, "space": second.space.id},)


def test_a_major_release_goes_live_and_says_what_it_cannot_read(slot, registry, kit, caplog):
    """Somebody chose it: the server answers on, names the spaces, counts the rows, and warns."""
    first = kit.numbered(1)
    registry.publish(first)
    slot.refresh()
    slot.add(["old", "older"], np.ones((2, 4), np.float32), None)
    registry.publish(replace(kit.numbered(2), level="major"))
    with caplog.at_level(logging.WARNING, logger="lifelong.serving"):
        assert slot.refresh()
    slot.add(["new"], np.ones((1, 4), np.float32), None)
    query = slot.live.embed(np.ones((1, 4), np.float32))

    assert (slot.version, slot.live.level, slot.rejected) == (2, "major", [])
    assert [record.getMessage() for record in caplog.records] == [
        "version=2 level=major cannot read 2 rows of the gallery"
    ]
    assert [hit.id for hit in slot.live.search(query, 5, None)[0]] == ["new"]
    assert (slot.live.unreadable(), slot.live.unreadable_rows()) == ([first.space.id], 2)
    assert "MAJOR" in registry.history()[-1].why


@pytest.mark.parametrize("level", ["major", "minor"])
def test_a_server_that_slept_through_a_major_release_follows_what_came_after(slot, registry, kit, level):
    """From 1 to 3 at once: 2 gave old rows up, 3 need not read them; had 2 been minor, 3 would have to."""
    registry.publish(kit.numbered(1))
    slot.refresh()
    slot.add(["old"], np.ones((1, 4), np.float32), None)
    second = kit.numbered(2)
    registry.publish(replace(second, level=level, parent=1))
    registry.publish(replace(kit.numbered(3, reads=[second]), level="minor", parent=2))

    assert slot.refresh() == (level == "major")
    assert slot.version == (3 if level == "major" else 1)


@pytest.mark.slow
def test_retired_versions_are_bounded(registry, shelf, tmp_path, kit):
    """Two stay for a rollback, older ones are freed."""
    import gc
    import weakref

    slot = opened(registry, shelf, tmp_path, keep=2)
    models = []
    kit.publish(registry, 5)
    for n in range(1, 6):
        registry.promote(n)
        slot.refresh()
        models.append(weakref.ref(slot.live.model))
    gc.collect()

    assert slot.retired == [4, 3]
    assert [ref() is not None for ref in models] == [False, False, True, True, True]


def test_a_restart_comes_back_on_the_same_version(slot, registry, shelf, tmp_path, kit):
    """CURRENT is good: that is it."""
    registry.publish(kit.numbered(1))
    slot.refresh()

    assert opened(registry, shelf, tmp_path).version == 1


@pytest.mark.parametrize("pointer", ["bad version", "garbage", "gone"])
def test_a_restart_with_a_bad_pointer_comes_back_on_the_last_good_version(
    slot, registry, shelf, tmp_path, kit, pointer
):
    """CURRENT, else LAST_GOOD."""
    kit.publish(registry, 3)
    for n in (1, 2):
        registry.promote(n)
        slot.refresh()
    slot.add(["a"], np.ones((1, 4), np.float32), None)
    if pointer == "bad version":
        truncated(part(registry, 3, "weights.safetensors"))
        point(registry, 3)
    elif pointer == "garbage":
        (registry.root / "CURRENT").write_text("garbage")
    else:
        (registry.root / "CURRENT").unlink()
    again = opened(registry, shelf, tmp_path)

    assert (again.version, number(again.live)) == (2, 2)
    assert again.live.view.spaces == {again.live.space.id}


def test_a_restart_judges_the_pointer_against_the_last_good_version(slot, registry, shelf, tmp_path, kit):
    """A label map that changed while the server was down is refused as if it had been up."""
    first = kit.numbered(1)
    registry.publish(first)
    slot.refresh()
    registry.publish(kit.numbered(2, labels=("x", "y", "z"), reads=[first]))

    assert opened(registry, shelf, tmp_path).version == 1


def test_a_restart_after_a_rollback_is_a_rollback(slot, registry, shelf, tmp_path, kit):
    """Rows that the rolled back version does not read must not keep the server down."""
    kit.publish(registry, 2)
    for n in (1, 2):
        registry.promote(n)
        slot.refresh()
    slot.add(["new"], np.ones((1, 4), np.float32), None)
    registry.rollback()
    assert opened(registry, shelf, tmp_path).version == 1

    assert opened(registry, shelf, tmp_path).version == 1  # LAST_GOOD is 1 by now


def test_a_first_start_on_rows_it_cannot_read_is_refused(registry, shelf, tmp_path, kit):
    """A gallery of somebody else's: not ready, with a reason."""
    stranger = kit.numbered(9).space
    shelf.add(["a"], np.ones((1, 4), np.float32), stranger, None)
    registry.publish(kit.numbered(1))
    slot = opened(registry, shelf, tmp_path)

    assert slot.version is None
    with pytest.raises(Unavailable, match="1 rows of the gallery"):
        _ = slot.live


def test_neither_pointer_nor_last_good_waits(registry, shelf, tmp_path, kit):
    """Not ready, and ready as soon as a good pointer appears."""
    (registry.root / "CURRENT").write_text("garbage")
    slot = opened(registry, shelf, tmp_path)
    assert slot.version is None
    registry.publish(kit.numbered(1))

    assert slot.refresh()
    assert slot.version == 1


@pytest.mark.parametrize("text", ["", "garbage", '{"version": null}', "[]"])
def test_a_damaged_last_good_is_ignored(slot, registry, shelf, tmp_path, kit, text):
    """It is a convenience, not the truth."""
    registry.publish(kit.numbered(1))
    (tmp_path / "state" / LAST_GOOD).write_text(text)

    assert opened(registry, shelf, tmp_path).version == 1


def test_last_good_names_only_what_went_live(slot, registry, tmp_path, kit):
    """A refused version is never remembered as good."""
    kit.publish(registry, 2)
    registry.promote(1)
    slot.refresh()
    truncated(part(registry, 2, "weights.safetensors"))
    point(registry, 2)
    slot.refresh()

    assert json.loads((tmp_path / "state" / LAST_GOOD).read_text()) == {"version": 1}


def test_an_unwritable_state_folder_does_not_stop_a_swap(slot, registry, tmp_path, kit, caplog):
    """Live but not remembered is better than not live."""
    (tmp_path / "state" / LAST_GOOD).mkdir()
    registry.publish(kit.numbered(1))

    assert slot.refresh()
    assert "cannot be written" in caplog.text


def test_a_request_keeps_its_version_and_its_view(slot, registry, kit):
    """What was taken once does not change under the request's feet."""
    kit.publish(registry, 2)
    registry.promote(1)
    slot.refresh()
    live, x = slot.live, np.ones((1, 4), np.float32)
    registry.promote(2)
    slot.refresh()
    slot.add(["later"], x, None)

    assert (live.version, number(live)) == (1, 1)
    assert live.search(live.embed(x), 5, None) == [[]]
    assert slot.live.search(slot.live.embed(x), 5, None)[0][0].id == "later"


def test_rows_are_written_in_the_space_of_the_version_that_is_live(slot, registry, kit):
    """A swap between embedding and storing makes the row be embedded again."""
    first = kit.numbered(1)
    registry.publish(first)
    slot.refresh()
    registry.publish(kit.numbered(2))  # does not read version 1's space: allowed while there are no rows
    x, embed = np.ones((1, 4), np.float32), Live.embed

    def slow(self, x):
        vectors = embed(self, x)
        slot.refresh()  # the swap comes in between
        return vectors

    Live.embed = slow
    try:
        live, _ = slot.add(["a"], x, None)
    finally:
        Live.embed = embed

    assert live.version == slot.version == 2
    assert slot.live.view.spaces == {slot.live.space.id} != {first.space.id}


def test_the_watcher_swaps_by_itself(registry, shelf, tmp_path, kit):
    """No call is needed; stop ends the thread."""
    slot = Slot(registry.root, shelf, tmp_path / "state", Seen(), poll_seconds=0.01)
    slot.start()
    try:
        registry.publish(kit.numbered(1))
        until = time.monotonic() + 30
        while slot.version != 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert slot.version == 1
    finally:
        slot.stop()
    assert "lifelong-slot" not in [thread.name for thread in threading.enumerate()]


def test_a_bug_in_the_watcher_is_told_once_and_survived(registry, shelf, tmp_path, kit, caplog, monkeypatch):
    """A disk that fails for an hour must not write a log line every 50 ms."""
    slot = Slot(registry.root, shelf, tmp_path / "state", Seen(), poll_seconds=0.001)
    rounds = []
    monkeypatch.setattr(shelf, "refresh", lambda: rounds.append(1) or 1 / 0)
    slot.start()
    try:
        until = time.monotonic() + 30
        while len(rounds) < 5 and time.monotonic() < until:
            time.sleep(0.01)
        registry.publish(kit.numbered(1))
        while slot.version != 1 and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        slot.stop()

    assert slot.version == 1
    assert caplog.text.count("ZeroDivisionError: ") == 1


def test_the_registry_is_never_written(slot, registry, kit):
    """It may be a read-only mount: serving leaves no trace in it, not even when refusing."""
    kit.publish(registry, 2)
    registry.promote(1)
    truncated(part(registry, 2, "weights.safetensors"))
    before = sorted((str(p), p.stat().st_mtime_ns) for p in registry.root.rglob("*"))
    slot.refresh()
    point(registry, 2)
    before = sorted((str(p), p.stat().st_mtime_ns) for p in registry.root.rglob("*"))
    slot.refresh()

    assert sorted((str(p), p.stat().st_mtime_ns) for p in registry.root.rglob("*")) == before


def test_the_snapshot_is_in_private_memory(slot, registry, kit):
    """Truncating or deleting the files of the live version does not touch it."""
    registry.publish(kit.numbered(1))
    slot.refresh()
    shutil.rmtree(registry.root / "versions" / "000001")

    assert number(slot.live) == 1


def test_a_follower_refuses_to_write_and_takes_over(tmp_path, kit):
    """One writer per gallery; when it is gone, the next write of a follower makes it the writer."""
    space, x = kit.numbered(1).space, np.ones((1, 4), np.float32)
    one = Shelf(tmp_path / "g")
    one.add(["a"], x, space, None)
    two = Shelf(tmp_path / "g")
    assert two.follows and two.view().stats().rows == 1
    one.add(["b"], x, space, None)
    two.refresh()
    assert two.view().stats().rows == 2
    with pytest.raises(Locked):
        two.add(["c"], x, space, None)
    one.close()
    two.add(["c"], x, space, None)

    assert not two.follows
    assert two.view().stats().rows == 3
    two.close()


def test_an_acknowledged_change_is_seen_by_any_worker(tmp_path, kit):
    """Without a look in between the follower does not know the row; asked for the change, it does, or says why not."""
    space, x = kit.numbered(1).space, np.ones((1, 4), np.float32)
    one = Shelf(tmp_path / "g")
    two = Shelf(tmp_path / "g")
    sequence = one.add(["a"], x, space, None)
    assert two.view().stats().rows == 0
    two.reach(sequence)
    assert [row.id for row in two.get(["a"]) if row] == ["a"]
    assert two.view().stats().rows == 1
    with pytest.raises(Behind, match="is at change 1, and the request wants to see 7"):
        two.reach(7)
    one.close()
    two.close()
