"""A schedule meets every task an exact number of times in a pass, evenly, and no sample too early again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong import files
from lifelong.learning.checkpoint import pack, unpack
from lifelong.learning.schedule import Schedule

tasks = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=5)  # owed per pass, held


def made(plan: list[tuple[int, int]], new: int, seed: int = 0) -> Schedule:
    schedule = Schedule(seed)
    counts, sizes = torch.tensor(plan).T
    schedule.begin(counts, sizes, new)
    return schedule


def owners(plan: list[tuple[int, int]]) -> list[int]:
    """Row of memory -> task."""
    return [task for task, (_, size) in enumerate(plan) for _ in range(size)]


@given(plan=tasks, new=st.integers(1, 40), size=st.integers(1, 9), passes=st.integers(1, 3), seed=st.integers(0, 99))
def test_each_pass_meets_each_task_exactly_as_often_as_planned(
    plan: list[tuple[int, int]], new: int, size: int, passes: int, seed: int
) -> None:
    """Whatever the batches; samples of a task repeat evenly; after s new samples floor(s R / N) old ones have come."""
    schedule, total = made(plan, new, seed), sum(n for n, _ in plan)
    for _ in range(passes):
        seen, met = 0, []
        while seen < new:
            batch = min(size, new - seen)
            met += schedule.rows(batch).tolist()
            seen += batch
            assert len(met) == total * seen // new
        tasks_met = [owners(plan)[row] for row in met]
        assert [tasks_met.count(task) for task in range(len(plan))] == [owed for owed, _ in plan]
        for row, task in enumerate(owners(plan)):
            owed, held = plan[task]
            assert met.count(row) in (owed // held, -(-owed // held))


def test_a_batch_across_two_passes_takes_what_is_left_of_one_and_begins_the_other() -> None:
    schedule = made([(4, 4)], 6)
    met = [schedule.rows(4).tolist(), schedule.rows(4).tolist(), schedule.rows(4).tolist()]

    assert [len(rows) for rows in met] == [2, 3, 3]
    together = [row for rows in met for row in rows]
    assert sorted(together[:4]) == sorted(together[4:]) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_pass_comes_in_a_drawn_order() -> None:
    """Any owed sample is as likely at any place: over 600 passes, the task at each place, by chi-square (99.9 %)."""
    plan, places = [(3, 9), (1, 2)], torch.zeros(4)
    for seed in range(600):
        schedule = made(plan, 4, seed)
        places[[owners(plan)[int(schedule.rows(1))] for _ in range(4)].index(1)] += 1
    assert float(((places - 150) ** 2 / 150).sum()) < 16.3


def test_nothing_is_owed_before_it_begins_and_after_it_was_cleared() -> None:
    schedule = Schedule()
    assert not len(schedule.rows(5))
    schedule = made([(3, 3)], 1)
    schedule.clear()
    assert not len(schedule.rows(5))


@pytest.mark.parametrize("done", [0, 1, 2, 7])
def test_a_restored_schedule_goes_on_alike(done: int) -> None:
    """Anywhere in a pass, and it shares no memory with the state it was restored from."""
    plan = [(5, 3), (2, 4)]
    first, second = made(plan, 10), Schedule(5)
    for _ in range(done):
        first.rows(2)
    tensors, plain = pack(first.state())
    state: dict[str, Any] = unpack(tensors, files.parse_json(files.canonical_json(plain)))
    second.restore(state)
    expected = [first.rows(3).tolist() for _ in range(9)]
    assert [second.rows(3).tolist() for _ in range(9)] == expected
    third = Schedule()
    third.restore(state)
    assert [third.rows(3).tolist() for _ in range(9)] == expected
