"""A large memory is committed by what changed in it: the same bits come back, and no file is missed or left."""

from __future__ import annotations

import logging

import pytest
import streams
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong.checks import digest
from lifelong.errors import ArtifactError
from lifelong.learning import patched
from lifelong.learning.buffers import Reservoir
from lifelong.learning.checkpoint import TENSORS, Checkpoints
from lifelong.learning.patched import LARGE, Base, Patched, Slow, whole
from lifelong.release.registry import Registry
from lifelong.types import Batch
from strategies.replay import Replay

WIDE = LARGE // 4 // 8  # of 10 rows in float32: above the limit from the eighth on


def samples(count: int, first: int = 0) -> Batch:
    random = torch.Generator().manual_seed(first)
    x = torch.randn(count, WIDE, generator=random)
    return Batch.of(x, torch.arange(count) % 3, torch.arange(first, first + count))


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=12))
def test_every_copy_stays_what_the_tensor_was_when_it_was_taken(rounds):
    """Against plain clones; rows are appended without gaps, as a memory does it."""
    rows, size, slow, random = torch.zeros(10, 3), 1, Slow(10), torch.Generator().manual_seed(0)
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patched, "LARGE", 1)
        for round_ in rounds:
            slots = torch.tensor([min(slot, size) for slot in round_], dtype=torch.int64)
            slots = slots[slots < 10]
            rows[slots] = torch.randn(len(slots), 3, generator=random)
            size = max(size, int(slots.max()) + 1) if len(slots) else size
            slow.wrote(slots)
            taken.append((slow.copy(rows[:size]), rows[:size].clone()))
    for copy, clone in taken:
        assert isinstance(copy, Patched)
        assert whole(copy).equal(clone)


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=4), st.booleans(), st.booleans()), max_size=15))
def test_a_new_base_may_be_made_at_any_time_or_never(rounds):
    """Whoever writes is slow, or not there at all: what is copied is right whichever base it has."""
    rows, slow, random, open_ = torch.zeros(10, 3), Slow(10), torch.Generator().manual_seed(0), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patched, "LARGE", 1)
        for slots, late, soon in rounds:
            if late and open_ is not None and open_.wish:
                open_.wish.base = Base(open_.whole())
            rows[slots] = torch.randn(len(slots), 3, generator=random)
            slow.wrote(torch.tensor(slots, dtype=torch.int64))
            copy = slow.copy(rows)
            assert copy.whole().equal(rows)
            if soon and copy.wish:
                copy.wish.base = Base(copy.whole())
            open_ = copy


def test_a_new_base_is_wanted_when_more_rows_were_copied_than_the_old_one_has():
    """12 rows, one more changed each time: 1 + 2 + 3 + 4 = 10 fit, the fifth makes it 15."""
    rows, slow, wanted = torch.zeros(12, LARGE // 8), Slow(12), []
    slow.copy(rows)
    for i in range(9):
        slow.wrote(torch.tensor([i]))
        copy = slow.copy(rows)
        wanted.append(copy.wish is not None)
        if copy.wish:
            copy.wish.base = Base(copy.whole())
    assert wanted == [False] * 4 + [True] + [False] * 4


def test_a_memory_that_is_committed_by_parts_comes_back_whole(tmp_path):
    """With the bits of one that was never committed, and with the same draws from then on."""
    memory, other = Reservoir(10), Reservoir(10)
    with Checkpoints(tmp_path, keep=2) as commits:
        for i in range(12):
            for one in (memory, other):
                one.add(samples(2, 2 * i))
            commits.start({"memory": memory.state(), "i": i})
            commits.wait()
            found = commits.latest()
            assert digest(found) == digest({"memory": memory.state(), "i": i})
            assert isinstance(found["memory"]["store"]["x"], torch.Tensor)
    again = Reservoir(10)
    again.restore(found["memory"])
    for one in (again, other):
        one.add(samples(5, 99))
    assert digest(again.state()) == digest(other.state())


def files_of(folder):
    return {path.name for path in (folder / "bases").iterdir()}


def two_bases(folder):
    """Commits 1 and 2 share a base, 3 has one of its own; all three are kept."""
    memory, commits = Reservoir(10), Checkpoints(folder, keep=3)
    memory.add(samples(10))
    commits.commit({"memory": memory.state()})
    memory.store.write(torch.tensor([0, 1]), samples(2, 50))
    commits.commit({"memory": memory.state()})
    memory.store.write(torch.arange(10), samples(10, 70))
    commits.commit({"memory": memory.state()})
    return memory, commits


def test_a_base_is_written_once_and_kept_as_long_as_a_commit_names_it(tmp_path):
    memory, commits = two_bases(tmp_path)
    first, second = files_of(tmp_path)
    assert {first, second} == {f"{s}.safetensors" for n in (1, 2, 3) for s in commits._named(n)}
    assert (tmp_path / "00000002" / TENSORS).stat().st_size < LARGE  # two rows of ten
    (old,) = {f"{s}.safetensors" for s in commits._named(1)}
    commits.commit({"memory": memory.state()})  # 1 goes
    assert old in files_of(tmp_path)
    commits.commit({"memory": memory.state()})  # 2 goes, and with it the last one that named it
    assert old not in files_of(tmp_path)
    (tmp_path / "bases" / ("f" * 64 + ".safetensors")).write_bytes(b"left by a killed writer")
    Checkpoints(tmp_path, keep=3).commit({"memory": memory.state()})
    assert len(files_of(tmp_path)) == 1


@pytest.mark.parametrize("harm", ["cut", "gone", "flipped"])
def test_a_damaged_base_costs_the_commits_that_name_it_and_no_other(harm, tmp_path, caplog):
    _, commits = two_bases(tmp_path)
    expected = digest(commits.load(2))
    (name,) = commits._named(3)
    path = tmp_path / "bases" / f"{name}.safetensors"
    data = path.read_bytes()
    path.unlink() if harm == "gone" else path.write_bytes(data[:-9] if harm == "cut" else data[:-1] + b"\x07")
    with caplog.at_level(logging.WARNING, logger="lifelong.checkpoint"):
        assert digest(commits.latest()) == expected
    assert "checkpoint 3 is damaged" in caplog.text
    (shared,) = commits._named(2)
    (tmp_path / "bases" / f"{shared}.safetensors").unlink()
    with pytest.raises(ArtifactError, match="no checkpoint in"):
        commits.latest()


def test_pinned_commits_stay_beside_the_last_ones(tmp_path):
    commits = Checkpoints(tmp_path, keep=2)
    for i in range(3):
        commits.commit({"i": i})
    commits.pin({7: 2})
    for i in range(3, 6):
        commits.commit({"i": i})
    assert commits.numbers() == [2, 5, 6]
    assert Checkpoints(tmp_path).pins() == {7: 2}
    commits.pin({8: 5})
    commits.commit({"i": 6})
    assert commits.numbers() == [5, 6, 7]
    (tmp_path / "pins.json").write_text("[3]")
    commits.commit({"i": 7})
    assert commits.numbers() == [7, 8]


class Crash(BaseException):
    """Not an error of ours: nothing may catch it."""


@pytest.mark.slow
def test_crashed_while_its_memory_is_committed_by_parts_a_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    """Every tensor of the memory comes in parts, however small; and each published version keeps its commit."""
    monkeypatch.setattr(patched, "LARGE", 1)
    stream = streams.log(tmp_path / "log", streams.messy(260))

    def started(name, step=None):
        def notify(kind, facts):
            if kind == "step" and facts["steps"] == step:
                raise Crash

        registry = Registry(tmp_path / f"registry-{name}", create=True)
        return streams.follower(
            stream, tmp_path / name, lambda: streams.learner(Replay(40)), registry=registry, notify=notify,
            settings={"publish_samples": 80}, commit_every=3,
        )  # fmt: skip

    started("whole").run()
    for step in (4, 9, 17):
        with pytest.raises(Crash):
            started("parts", step).run()
    started("parts").run()
    whole_, parts = (Checkpoints(tmp_path / name / "checkpoints", keep=3) for name in ("whole", "parts"))
    assert digest(parts.latest()) == digest(whole_.latest())
    assert len(list((parts.folder / "bases").iterdir())) >= 4
    versions = Registry(tmp_path / "registry-parts")
    pins = parts.pins()
    assert set(pins) == {versions.current(), versions.versions()[-1]}
    made = parts.load(pins[versions.current()])["learner"]["model"]
    kept = versions.load(versions.current()).weights
    assert all(made[name].equal(tensor) for name, tensor in kept.items())
