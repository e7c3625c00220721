"""Memories: how likely each sample is kept, how many are, and that a restored one goes on alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong import files
from lifelong.checks import digest
from lifelong.errors import ConfigError
from lifelong.learning import ClassBalanced, Reservoir
from lifelong.learning.buffers import draw_rows
from lifelong.learning.checkpoint import pack, unpack
from lifelong.types import Batch

KINDS = [Reservoir, ClassBalanced]
seeds = st.integers(0, 2**31)


def numbered(labels: list[int], first: int = 0) -> Batch:
    """Samples whose inputs, ids and tasks can be told from one another's."""
    ids = torch.arange(first, first + len(labels))
    return Batch.of(ids.float().unsqueeze(1) * 10, torch.tensor(labels, dtype=torch.int64), ids, task=ids % 3)


def chi_square(counts: Tensor, runs: int, kept: int) -> float:
    """Chi-square with n - 1 degrees of inclusion counts [n], over `runs` draws of `kept` of n without repeats.

    Counts of one draw are negatively correlated (they add up to `kept`); (n - 1) / n makes up for it.
    """
    n = len(counts)
    share = kept / n
    spread = (counts.double() - runs * share).square().sum() / (runs * share * (1 - share))
    return float(spread) * (n - 1) / n


@pytest.mark.parametrize(
    ("capacity", "sizes", "quantile"), [(2, (1, 3, 4), 24.4), (1, (1, 1, 1), 13.9), (12, (5, 1, 20, 3, 21), 85.4)]
)
@pytest.mark.slow
def test_every_sample_of_a_stream_is_kept_with_the_same_odds(
    capacity: int, sizes: tuple[int, ...], quantile: float
) -> None:
    """Whatever its position and its batch; 99.9 % quantiles of chi-square with n - 1 degrees."""
    counts, runs = torch.zeros(sum(sizes)), 300
    for seed in range(runs):
        memory, start = Reservoir(capacity, seed), 0
        for size in sizes:
            memory.add(numbered([0] * size, start))
            start += size
        counts[memory.store.all.ids] += 1

    assert counts.sum() == capacity * runs
    assert chi_square(counts, runs, capacity) < quantile


@pytest.mark.slow
def test_within_a_class_every_sample_is_kept_with_the_same_odds() -> None:
    """Also in a class that had to give up half of its rows: 99.9 % quantile with 29 degrees is 58.3."""
    counts, runs = torch.zeros(60), 500
    for seed in range(runs):
        memory = ClassBalanced(20, seed)
        for start in (0, 15, 30, 45):
            memory.add(numbered([start // 30] * 15, start))
        counts[memory.store.all.ids] += 1

    for half in (counts[:30], counts[30:]):
        assert half.sum() == 10 * runs
        assert chi_square(half, runs, 10) < 58.3


@pytest.mark.parametrize("kind", KINDS)
@given(
    capacity=st.integers(1, 9), stream=st.lists(st.lists(st.integers(0, 4), max_size=9), max_size=6), seed=st.just(0)
)
def test_a_memory_holds_whole_samples_of_the_stream_and_never_more_than_its_capacity(
    kind: type[Reservoir], capacity: int, stream: list[list[int]], seed: int
) -> None:
    memory, everything = kind(capacity, seed), numbered([y for batch in stream for y in batch])
    start = 0
    for labels in stream:
        memory.add(everything[start : start + len(labels)])
        start += len(labels)

        assert len(memory) == min(start, capacity)
        if start:
            held = memory.store.all
            assert len(held.ids.unique()) == len(held)
            for name, tensor in everything.take(held.ids).state().items():
                assert torch.equal(held.state()[name], tensor), name


@given(capacity=st.integers(1, 12), labels=st.lists(st.integers(0, 4), max_size=60), seed=seeds)
def test_classes_share_the_room_equally_as_far_as_they_have_samples(
    capacity: int, labels: list[int], seed: int
) -> None:
    """No class could have one more without another, at least as large as it would then be, having one less."""
    memory = ClassBalanced(capacity, seed)
    memory.add(numbered(labels))
    came = torch.tensor(labels, dtype=torch.int64).bincount(minlength=5)
    kept = memory.store.all.y.bincount(minlength=5) if labels else came

    assert (kept <= came).all()
    hungry = kept[kept < came]
    assert not len(hungry) or int(hungry.min()) >= int(kept.max()) - 1


@given(size=st.integers(1, 40), count=st.integers(0, 60), seed=seeds)
def test_a_draw_repeats_nothing_before_it_has_to(size: int, count: int, seed: int) -> None:
    rows = draw_rows(size, count, torch.Generator().manual_seed(seed))
    times = rows.bincount(minlength=size)

    assert len(rows) == count
    assert int(times.max() - times.min()) <= 1
    assert len(times) == size


def test_few_of_many_are_drawn_uniformly_too() -> None:
    """The short cut for small draws: 3 of 30; 99.9 % quantile with 29 degrees is 58.3."""
    random, counts = torch.Generator().manual_seed(0), torch.zeros(30)
    for _ in range(1000):
        counts += draw_rows(30, 3, random).bincount(minlength=30)

    assert chi_square(counts, 1000, 3) < 58.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy_seed", range(3))
def test_a_memory_restored_from_disk_goes_on_bit_for_bit(kind: type[Reservoir], policy_seed: int) -> None:
    """Canonical JSON sorts keys: nothing may hang on the order of a dict, not even who gives way in a tie."""
    first, second = kind(12, policy_seed), kind(12, seed=99)
    first.add(numbered([11, 2, 7, 0, 2, 11, 7, 0, 11, 2, 7, 0]))
    first.draw(3)
    tensors, plain = pack(first.state())
    second.restore(unpack(tensors, files.parse_json(files.canonical_json(plain))))
    for memory in (first, second):
        memory.add(numbered([5, 5, 3, 11, 2, 5, 3, 9] * 3, first=100))

    assert torch.equal(first.draw(5).ids, second.draw(5).ids)
    assert digest(first.state()) == digest(second.state())


@pytest.mark.parametrize("kind", KINDS)
def test_memory_and_state_are_copies(kind: type[Reservoir]) -> None:
    memory, batch = kind(4), numbered([0, 1, 0])
    memory.add(batch)
    batch.x.fill_(-1)
    state = memory.state()
    saved = state["store"]["x"].clone()
    memory.store.all.x.fill_(-2)
    drawn = memory.draw(2)
    drawn.x.fill_(-3)

    assert saved.flatten().tolist() == [0.0, 10.0, 20.0]
    assert torch.equal(state["store"]["x"], saved)
    assert (memory.store.all.x == -2).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_that_is_too_large_or_too_small_is_refused(kind: type[Reservoir]) -> None:
    large = kind(5)
    large.add(numbered([0, 1, 2, 3, 4]))

    with pytest.raises(ConfigError, match="at least 1 sample, got 0"):
        kind(0)
    with pytest.raises(ConfigError, match="holds 5 samples, more than capacity=3"):
        kind(3).restore(large.state())


@settings(max_examples=20)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=30), seed=seeds)
def test_an_empty_state_round_trips(labels: list[int], seed: int) -> None:
    """Restoring the state of an empty memory empties a full one."""
    for kind in KINDS:
        full, empty = kind(5, seed), kind(5, seed)
        full.add(numbered(labels))
        full.restore(empty.state())

        assert len(full) == 0
        assert digest(full.state()) == digest(empty.state())
