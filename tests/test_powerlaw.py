"""Power-law rehearsal: the odds of its kernels, by closed form and by what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifelong.types import Batch, Experience, Output
from strategies.powerlaw import PowerLawRehearsal, odds


def samples(index: int, count: int) -> Batch:
    ids = torch.arange(count) + 100 * index
    return Batch.of(ids[:, None].float(), torch.zeros(count, dtype=torch.int64), ids, index)


def chi_square(counts: Tensor, shares: Tensor) -> float:
    """Pearson's statistic of independent draws; shares of 0 must not have been drawn at all."""
    expected = counts.sum() * shares.double()
    assert not counts[shares == 0].any()
    some = shares > 0
    return float(((counts[some] - expected[some]) ** 2 / expected[some]).sum())


ages = st.lists(st.integers(1, 50), min_size=1, max_size=8, unique=True)


@given(age=ages, alpha=st.floats(0, 4))
def test_power_law_odds_are_the_closed_form(age: list[int], alpha: float) -> None:
    """P(age d) = d ** -alpha / sum of e ** -alpha; the other kernels likewise."""
    kernels: dict[str, Callable[[int], float]] = {
        "power": lambda d: d**-alpha,
        "exponential": lambda d: 2.718281828459045 ** (-alpha * d),
        "uniform": lambda d: 1.0,
        "last": lambda d: float(d == min(age)),
        "anti": lambda d: d**alpha,
    }
    for kernel, weight in kernels.items():
        total = sum(map(weight, age))
        if total == 0:  # exp underflows in this naive form: nothing to compare with
            continue
        expected = torch.tensor([weight(d) / total for d in age], dtype=torch.float64)
        torch.testing.assert_close(odds(torch.tensor(age), kernel, alpha), expected, rtol=1e-9, atol=1e-12)


def remembering(kernel: str, alpha: float, tasks: int = 4, capacity: int = 20) -> Any:
    """A power-law strategy that has finished `tasks` tasks of ten samples each."""
    made = PowerLawRehearsal(capacity=capacity, ratio=1.0, alpha=alpha, kernel=kernel)
    for index in range(tasks):
        batch = samples(index, 10)
        experience = Experience(index, "e", [], batch)
        made.begin(None, experience)
        made.observe(None, batch, Output(batch.x, batch.x))
        made.end(None, experience)
    return made


@pytest.mark.parametrize(
    ("kernel", "alpha", "weights"),
    [
        ("power", 1.0, [1 / 4, 1 / 3, 1 / 2, 1.0]),
        ("power", 2.0, [1 / 16, 1 / 9, 1 / 4, 1.0]),
        ("power", 0.0, [1.0, 1.0, 1.0, 1.0]),
        ("uniform", 3.0, [1.0, 1.0, 1.0, 1.0]),
        ("exponential", 0.6931471805599453, [1 / 8, 1 / 4, 1 / 2, 1.0]),
        ("last", 1.0, [0.0, 0.0, 0.0, 1.0]),
        ("anti", 1.0, [4.0, 3.0, 2.0, 1.0]),
    ],
)
def test_tasks_are_met_again_with_the_odds_of_the_kernel(kernel: str, alpha: float, weights: list[float]) -> None:
    """Oldest first; and each sample of a task as often as another. 99.9 % quantiles: 16.3 (3 degrees), 18.5 (4)."""
    made = remembering(kernel, alpha)
    new = samples(9, 4000)
    old = made.augment(new)[4000:]
    shares = torch.tensor(weights, dtype=torch.float64)

    assert len(old) == 4000
    assert chi_square(old.task.bincount(minlength=4), shares / shares.sum()) < 16.3
    ids, times = old.ids[old.task == 3].unique(return_counts=True)
    assert len(ids) == 5
    assert chi_square(times, torch.full((5,), 0.2)) < 18.5


@given(capacity=st.integers(1, 30), tasks=st.integers(1, 8))
def test_the_power_law_memory_is_shared_equally_and_never_too_large(capacity: int, tasks: int) -> None:
    """With more tasks than room the oldest are forgotten."""
    made = remembering("power", 1.0, tasks, capacity)
    kept = made.memory.task.unique_consecutive(return_counts=True)
    youngest = list(range(tasks))[-capacity:]

    assert sum(made.sizes) == len(made.memory) <= capacity
    assert kept[0].tolist() == youngest
    assert kept[1].tolist() == made.sizes
    assert max(made.sizes) <= capacity // len(youngest)
    assert max(made.sizes) - min(made.sizes) == 0 or max(made.sizes) <= 10
