"""Odds by age in closed form, and whole numbers that add up."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifelong.errors import ConfigError
from lifelong.learning.allocation import KERNELS, allocate, log_weights, odds

ages = st.lists(st.integers(1, 50), min_size=1, max_size=8, unique=True)
alphas = st.floats(0, 4)
budgets = st.integers(0, 500)
decaying = st.sampled_from(["power", "exponential"])


@given(age=ages, alpha=alphas)
def test_odds_are_the_closed_form(age: list[int], alpha: float) -> None:
    """P(age d) = d ** -alpha / sum of e ** -alpha; the other kernels likewise."""
    kernels: dict[str, Callable[[int], float]] = {
        "power": lambda d: d**-alpha,
        "exponential": lambda d: 2.718281828459045 ** (-alpha * d),
        "uniform": lambda d: 1.0,
        "last": lambda d: float(d == min(age)),
        "anti": lambda d: d**alpha,
    }
    assert tuple(kernels) == KERNELS
    for kernel, weight in kernels.items():
        total = sum(map(weight, age))
        if total == 0:  # exp underflows in this naive form: nothing to compare with
            continue
        expected = torch.tensor([weight(d) / total for d in age], dtype=torch.float64)
        torch.testing.assert_close(odds(torch.tensor(age), kernel, alpha), expected, rtol=1e-9, atol=1e-12)


@given(age=ages, alpha=alphas)
def test_two_tasks_are_met_in_the_inverse_ratio_of_their_ages(age: list[int], alpha: float) -> None:
    """p_i / p_j = (d_j / d_i) ** alpha, to 1e-12."""
    p = odds(torch.tensor(age), "power", alpha)
    for i, d in enumerate(age):
        assert float(p[i] / p[0]) == pytest.approx((age[0] / d) ** alpha, rel=1e-12)


@given(age=ages, alpha=alphas, kernel=st.sampled_from(KERNELS), data=st.data())
def test_odds_and_numbers_belong_to_the_age_and_not_to_the_place(
    age: list[int], alpha: float, kernel: str, data: st.DataObject
) -> None:
    """Whatever the order of the tasks; of equal remainders the first is served, so equal odds are left out."""
    order = data.draw(st.permutations(range(len(age))))
    p, other = odds(torch.tensor(age), kernel, alpha), odds(torch.tensor(age)[list(order)], kernel, alpha)
    torch.testing.assert_close(other, p[list(order)], rtol=1e-13, atol=0)
    quotas = 97 * p
    remainders = sorted((quotas - quotas.floor()).tolist())
    if all(b - a > 1e-9 for a, b in pairwise(remainders)):
        assert allocate(97, other).tolist() == allocate(97, p)[list(order)].tolist()


@given(weights=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), budget=budgets)
def test_an_allocation_is_hamiltons_apportionment(weights: list[int], budget: int) -> None:
    """Written out in fractions: whole quotas, then one more by remainder. Each number is within 1 of its quota."""
    quotas = [Fraction(budget * w, sum(weights)) for w in weights]
    expected = [math.floor(q) for q in quotas]
    for i in sorted(range(len(quotas)), key=lambda i: (expected[i] - quotas[i], i))[: budget - sum(expected)]:
        expected[i] += 1

    given_ = allocate(budget, torch.tensor(weights, dtype=torch.float64) / sum(weights)).tolist()
    assert sum(given_) == budget
    assert all(abs(n - q) < 1 for n, q in zip(given_, quotas, strict=True))
    remainders = [q - math.floor(q) for q in quotas]
    if len({r for r in remainders if r}) == len([r for r in remainders if r]):  # floats may swap equal remainders
        assert given_ == expected


rooms = st.lists(st.integers(0, 40), min_size=1, max_size=8)


@given(room=rooms, kernel=st.sampled_from(KERNELS), alpha=alphas, share=st.floats(0, 1))
def test_an_allocation_adds_up_and_nobody_gets_more_than_there_is_room_for(
    room: list[int], kernel: str, alpha: float, share: float
) -> None:
    budget = round(share * sum(room))
    given_ = allocate(budget, odds(torch.arange(len(room), 0, -1), kernel, alpha), torch.tensor(room))

    assert int(given_.sum()) == budget
    assert all(0 <= n <= most for n, most in zip(given_.tolist(), room, strict=True))


@given(age=ages, kernel=decaying, alpha=alphas, budget=budgets, room=st.none() | st.integers(0, 200))
def test_the_older_a_task_is_the_fewer_of_its_samples_come(
    age: list[int], kernel: str, alpha: float, budget: int, room: int | None
) -> None:
    """Never more of an older one, also where all have the same room."""
    limit = None if room is None else torch.full((len(age),), room)
    budget = budget if room is None else min(budget, room * len(age))
    age.sort(reverse=True)
    given_ = allocate(budget, odds(torch.tensor(age), kernel, alpha), limit).tolist()
    if alpha > 1e-6:  # below, odds may be equal in float64
        assert given_ == sorted(given_)
    else:
        assert max(given_) - min(given_) <= 1


@given(age=ages, budget=budgets, kernel=st.sampled_from(["power", "exponential", "anti"]))
def test_without_decay_all_tasks_get_the_same(age: list[int], budget: int, kernel: str) -> None:
    """alpha = 0 is `uniform`: numbers differ by at most 1."""
    given_ = allocate(budget, odds(torch.tensor(age), kernel, 0.0))
    assert int(given_.max() - given_.min()) <= 1
    assert given_.tolist() == allocate(budget, odds(torch.tensor(age), "uniform", 3.0)).tolist()


@given(age=ages, budget=budgets)
def test_endless_decay_leaves_the_youngest_only(age: list[int], budget: int) -> None:
    """A very large alpha is `last`; nothing overflows on the way."""
    for kernel in ("power", "exponential"):
        given_ = allocate(budget, odds(torch.tensor(age), kernel, 1e5))
        assert given_.tolist() == allocate(budget, odds(torch.tensor(age), "last", 1.0)).tolist()
        assert given_.tolist() == [budget * (d == min(age)) for d in age]


@pytest.mark.parametrize(
    ("budget", "weights", "room", "expected"),
    [
        (10, [0.5, 0.3, 0.2], [2, 9, 9], [2, 5, 3]),  # 3 go over: 1.8 and 1.2
        (12, [0.5, 0.25, 0.25], [4, 3, 9], [4, 3, 5]),  # 2 go over, 1 of them again
        (5, [1.0, 0.0, 0.0], [1, 9, 9], [1, 2, 2]),  # odds 0 come last, in equal parts
        (0, [1.0], [0], [0]),
    ],
)
def test_what_does_not_fit_goes_to_the_others_by_their_odds(
    budget: int, weights: list[float], room: list[int], expected: list[int]
) -> None:
    """Computed by hand."""
    odds_ = torch.tensor(weights, dtype=torch.float64)
    assert allocate(budget, odds_, torch.tensor(room)).tolist() == expected


def test_more_than_there_is_room_for_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lies in 0\.\.3, the room of 2 tasks; got 4"):
        allocate(4, torch.tensor([0.5, 0.5]), torch.tensor([1, 2]))
    with pytest.raises(ConfigError, match="got -1"):
        allocate(-1, torch.tensor([1.0]))


def test_weights_of_great_ages_do_not_underflow() -> None:
    """exp(-5000) is no float64; its logarithm is, and the odds among the old are right."""
    found: Tensor = log_weights(torch.tensor([5000, 5001]), "exponential", 1.0)
    assert found.tolist() == [-5000, -5001]
    assert float(odds(torch.tensor([5000, 5001]), "exponential", 1.0)[0]) == pytest.approx(1 / (1 + math.exp(-1)))
