"""Power-law rehearsal: which task is met how often, by hand; and which clock may be set back by rehearsal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifelong.checks import LAWS
from lifelong.data import load
from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Learner, Optim
from lifelong.learning.aged import Moments, Tasks
from lifelong.learning.allowance import Allowance
from lifelong.learning.budgets import Budget, cost
from lifelong.models import build
from lifelong.trial import Toy
from lifelong.types import Batch, Experience
from strategies.powerlaw import PowerLawRehearsal


def stream(tasks: int, count: int = 24) -> list[Experience]:
    """Ids tell the task: 1000 per experience; labels are 0 and 1 everywhere."""
    random = torch.Generator().manual_seed(0)
    made = []
    for index in range(tasks):
        ids = torch.arange(count) + 1000 * index
        x = torch.randn(count, 3, generator=random)
        made.append(Experience(index, f"e{index}", [0, 1], Batch.of(x, ids % 2, ids), task=index))
    return made


def learner(
    strategy: PowerLawRehearsal, setting: Toy | None = None, size: int = 7, budget: Budget | None = None
) -> Learner:
    spec = {"backbone": {"name": "mlp", "inputs": [3], "hidden": [4], "features": 4}, "head": {"name": "linear"}}
    return Learner(build(spec), strategy, optim=Optim(lr=0.01), batch_size=size, setting=setting, budget=budget)


def watched(strategy: PowerLawRehearsal) -> list[list[int]]:
    """Note the ids that each step rehearses."""
    met: list[list[int]] = []
    augment = strategy.augment

    def noting(batch: Batch) -> Batch:
        mixed = augment(batch)
        met.append(mixed.ids[len(batch) :].tolist())
        return mixed

    strategy.augment = noting  # type: ignore[method-assign]
    return met


def shares(met: list[list[int]], tasks: int) -> list[int]:
    """Rehearsed samples of each task, oldest first."""
    counts = Counter(i // 1000 for ids in met for i in ids)
    return [counts[task] for task in range(tasks)]


KERNELS = {  # of 60 samples and tasks that are 3, 2 and 1 experiences old
    ("power", 1.0): [11, 16, 33],  # 60 / (11/6) = 32.73, 16.36, 10.91
    ("power", 0.0): [20, 20, 20],
    ("uniform", 9.0): [20, 20, 20],
    ("exponential", 0.6931471805599453): [9, 17, 34],  # 60 * 4/7 = 34.29, 17.14, 8.57
    ("last", 1.0): [0, 0, 60],
    ("anti", 1.0): [30, 20, 10],
}


@pytest.mark.parametrize(("law", "expected"), KERNELS.items(), ids=str)
@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.slow
def test_a_fixed_budget_is_met_exactly_in_every_pass(law: tuple[str, float], expected: list[int], epochs: int) -> None:
    """By hand, for the fourth task; each step gets its even part of the 60, to within 1; the first has none."""
    made = PowerLawRehearsal(capacity=300, budget=60, kernel=law[0], alpha=law[1])
    met, one = watched(made), learner(made)
    for experience in stream(4, 70):
        met.clear()
        one.fit(experience, epochs)
        per = len(met) // epochs
        for epoch in range(epochs):
            ids = [i for step in met[epoch * per : (epoch + 1) * per] for i in step]
            assert len(ids) == (60 if experience.index else 0)
            assert len(set(ids)) == len(ids)
        assert all(len(step) in ((6,) if experience.index else (0,)) for step in met)

    assert shares(met[: len(met) // epochs], 3) == expected


@pytest.mark.parametrize(("budget", "expected"), [(24, [5, 9, 10]), (60, [11, 16, 33])])
def test_a_small_memory_is_not_repeated_before_it_is_used_up(budget: int, expected: list[int]) -> None:
    """10 of each task: of 24, tasks get 4, 7 and 10 and the last 3 go to the older two; 60 are more than there are."""
    met, one = watched(made := PowerLawRehearsal(capacity=30, budget=budget)), learner(made)
    for experience in stream(4):
        met.clear()
        one.fit(experience)

    assert shares(met, 3) == expected
    times = Counter(i for ids in met for i in ids)
    assert max(times.values()) == (1 if budget == 24 else 4)


@pytest.mark.parametrize(("law", "expected"), KERNELS.items(), ids=str)
def test_a_learner_that_allows_half_keeps_the_shares(law: tuple[str, float], expected: list[int]) -> None:
    """3 of the 6 that come due in a step: two passes rehearse the 60 of one, and of each task as many as planned."""
    made = PowerLawRehearsal(capacity=300, budget=60, kernel=law[0], alpha=law[1])
    (probe := learner(PowerLawRehearsal())).fit(stream(1)[0])
    each = cost(probe.model, stream(1)[0].train, 1)[0]
    met, one = watched(made), learner(made, budget=Budget(flops=10 * each + 1))
    for experience in stream(4, 70):
        met.clear()
        one.fit(experience, 2)

    assert [len(step) for step in met] == [3] * 20
    assert shares(met, 3) == expected


def test_without_boundaries_only_what_a_learner_allows_is_met() -> None:
    """Of two samples that are wanted one may come: the other's clock goes on, and none is owed to the next step."""
    moments, allowance = Moments(4, "reservoir", 0), Allowance(1)
    moments.add(stream(1)[0].train[:4])
    old = moments.draw(2.0, "power", 1.0, allowance)

    assert old is not None
    assert len(old) == allowance.left_out == 1
    moments.add(old[:0])
    assert moments.last.bincount().tolist() == [3, 1]
    assert moments.owed == 0.0
    assert moments.draw(2.0, "power", 1.0, allowance) is None
    moments.add(old[:0])
    assert moments.last.bincount().tolist() == [3, 1]


def test_the_budget_is_ratio_times_the_new_samples_unless_it_is_named() -> None:
    """And every kernel rehearses as many samples in as many steps: comparisons are fair."""
    costs = set()
    for kernel in ("power", "exponential", "uniform", "last", "anti"):
        one = learner(PowerLawRehearsal(capacity=30, ratio=0.5, kernel=kernel))
        for experience in stream(4):
            one.fit(experience, 2)
        costs.add((one.counters["steps"], one.counters["rehearsed"]))
    assert costs == {(4 * 2 * 4, 3 * 2 * 12)}


def test_proportional_rehearsal_grows_with_the_number_of_tasks() -> None:
    """round(24 / d) samples of a task of age d, whatever memory holds: 24, then 36, then 44."""
    made = PowerLawRehearsal(capacity=9, mode="proportional")
    met, one = watched(made), learner(made)
    found = []
    for experience in stream(4):
        met.clear()
        one.fit(experience)
        found.append(shares(met, 3))
    assert found == [[0, 0, 0], [24, 0, 0], [12, 24, 0], [8, 12, 24]]


def rehearsed_last(made: PowerLawRehearsal, tasks: int, set_back: bool = False) -> list[int]:
    """Rehearsed samples of each task in the last experience; `set_back` plants a clock that rehearsal sets back."""
    met, one = watched(made), learner(made)
    last: dict[int, int] = {}  # task -> experience in which it was last met, in whatever way
    if set_back:
        assert isinstance(made.met, Tasks)
        made.met.ages = lambda: torch.tensor([len(last) - last[task] for task in last])  # type: ignore[method-assign]
    for experience in stream(tasks):
        met.clear()
        one.fit(experience)
        last[experience.index] = experience.index
        last.update({i // 1000: experience.index for ids in met for i in ids})
    return shares(met, tasks - 1)


def test_rehearsal_does_not_make_a_task_younger() -> None:
    """24 samples of tasks of ages 4, 3, 2, 1 are 2.88, 3.84, 5.76, 11.52; set back, all are of age 1: 6 of each."""
    law = partial(PowerLawRehearsal, capacity=400, budget=24)

    assert rehearsed_last(law(), 5) == [3, 4, 6, 11]
    assert rehearsed_last(law(), 5, set_back=True) == rehearsed_last(law(kernel="uniform"), 5) == [6, 6, 6, 6]


@pytest.mark.parametrize("buffer", ["reservoir", "balanced"])
def test_what_comes_back_is_what_the_stream_gave(buffer: str) -> None:
    """Bit for bit, with the label, id and task of its own experience: a permuted sample comes back permuted."""
    made = PowerLawRehearsal(capacity=20, buffer=buffer)
    one, whole = learner(made), Batch.cat([e.train for e in stream(4)])
    for experience in stream(4):
        one.fit(experience)
    assert isinstance(made.met, Tasks)
    memory = made.met.memory
    assert memory is not None
    rows = torch.tensor([whole.ids.tolist().index(i) for i in memory.ids.tolist()])
    assert torch.equal(memory.x, whole.x[rows])
    assert torch.equal(memory.y, whole.y[rows])
    assert memory.task.tolist() == [i // 1000 for i in memory.ids.tolist()]


@given(capacity=st.integers(1, 30), tasks=st.integers(1, 6), buffer=st.sampled_from(["reservoir", "balanced"]))
def test_memory_is_shared_equally_and_never_too_large(capacity: int, tasks: int, buffer: str) -> None:
    """With more tasks than room the oldest are forgotten; a balanced share has as many of one class as of another."""
    held = Tasks(capacity, buffer, 0)
    for experience in stream(tasks):
        none = torch.zeros_like(held.sizes)
        held.begin(experience, none, 1)
        held.add(experience.train)
        held.end()
        assert len(held) <= capacity
    assert held.memory is not None
    owner = held.memory.ids // 1000
    kept = owner.unique_consecutive(return_counts=True)
    youngest = list(range(tasks))[-capacity:]

    assert kept[0].tolist() == youngest
    assert kept[1].tolist() == held.sizes.tolist() == [min(24, capacity // len(youngest))] * len(youngest)
    for task in youngest if buffer == "balanced" else []:
        y = held.memory.y[owner == task]
        assert abs(int(y.sum()) - int((1 - y).sum())) <= 1


class Endless:
    """Data of unknown length."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return zip(self.batch.x, self.batch.y.tolist(), strict=True)


def test_data_of_unknown_length_is_rehearsed_by_ratio_and_refuses_a_budget() -> None:
    one = learner(PowerLawRehearsal(capacity=10, ratio=0.5))
    for e in stream(3):
        one.fit(Experience(e.index, e.name, e.classes, Endless(e.train)))
    assert one.counters["rehearsed"] == 2 * 12

    refused = learner(PowerLawRehearsal(budget=5))
    with pytest.raises(ConfigError, match="a budget needs data of known length, got Endless; give ratio instead"):
        refused.fit(Experience(0, "e", [0, 1], Endless(stream(1)[0].train)))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"mode": "fixd"}, UnknownName, "did you mean 'fixed'"),
        ({"buffer": "balancd"}, UnknownName, "did you mean 'balanced'"),
        ({"budget": 0}, ConfigError, "got budget=0 in mode fixed"),
        ({"budget": 9, "mode": "stochastic"}, ConfigError, "belongs to mode fixed"),
        ({"alpha": float("inf")}, ConfigError, "alpha=inf"),
        ({"ratio": float("nan")}, ConfigError, "ratio=nan"),
        ({"mode": "stochastic", "capacity": 0}, ConfigError, "at least 1 sample"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        PowerLawRehearsal(**arguments)


# ---- without boundaries


def test_only_the_streaming_mode_takes_streams_without_boundaries() -> None:
    online = Toy("online", frozenset())
    learner(PowerLawRehearsal(mode="stochastic"), online)
    for mode in ("fixed", "proportional"):
        with pytest.raises(ConfigError, match="needs boundaries"):
            learner(PowerLawRehearsal(mode=mode), online)


WEIGHTS = {  # of samples met 4, 3, 2 and 1 steps ago
    ("power", 1.0): [1 / 4, 1 / 3, 1 / 2, 1.0],
    ("power", 2.0): [1 / 16, 1 / 9, 1 / 4, 1.0],
    ("uniform", 3.0): [1.0, 1.0, 1.0, 1.0],
    ("exponential", 0.6931471805599453): [1 / 8, 1 / 4, 1 / 2, 1.0],
    ("last", 1.0): [0.0, 0.0, 0.0, 1.0],
    ("anti", 1.0): [4.0, 3.0, 2.0, 1.0],
}


@pytest.mark.parametrize(("law", "weights"), WEIGHTS.items(), ids=str)
@pytest.mark.slow
def test_a_sample_is_met_again_with_the_odds_of_its_age_in_steps(law: tuple[str, float], weights: list[float]) -> None:
    """Over 4,000 draws of one each; 99.9 % quantile of chi-square with 3 degrees: 16.3."""
    moments = Moments(4, "reservoir", 0)
    for step in range(4):
        moments.add(stream(1)[0].train[step : step + 1])
    clock, counts = moments.last.clone(), torch.zeros(4)
    for _ in range(4000):
        old = moments.draw(1.0, *law)
        assert old is not None
        counts[old.ids] += 1
        moments.last = clock.clone()

    expected = 4000 * torch.tensor(weights) / sum(weights)
    assert not counts[expected == 0].any()
    some = expected > 0
    assert float(((counts - expected)[some] ** 2 / expected[some]).sum()) < 16.3


@pytest.mark.slow
def test_two_draws_of_one_step_differ_and_have_the_odds_of_successive_draws() -> None:
    """P({i, j}) = p_i p_j / (1 - p_i) + p_j p_i / (1 - p_j); 99.9 % quantile with 2 degrees: 13.8."""
    moments = Moments(3, "reservoir", 0)
    for step in range(3):
        moments.add(stream(1)[0].train[step : step + 1])
    clock, counts = moments.last.clone(), Counter[tuple[int, ...]]()
    for _ in range(4000):
        old = moments.draw(2.0, "power", 1.0)
        assert old is not None
        counts[tuple(sorted(old.ids.tolist()))] += 1
        moments.last = clock.clone()

    p = [2 / 11, 3 / 11, 6 / 11]  # ages 3, 2, 1
    pairs = {(i, j): p[i] * p[j] / (1 - p[i]) + p[i] * p[j] / (1 - p[j]) for i, j in [(0, 1), (0, 2), (1, 2)]}
    assert set(counts) == set(pairs)
    assert sum((counts[pair] - 4000 * q) ** 2 / (4000 * q) for pair, q in pairs.items()) < 13.8


def test_without_boundaries_a_sample_that_was_rehearsed_is_young_again() -> None:
    """`last` tells: after one step of rest, what was just stored or rehearsed is of age 1, all else older."""
    moments = Moments(6, "reservoir", 0)
    data = stream(1)[0].train
    moments.add(data[:3])
    moments.add(data[3:5])
    old = moments.draw(1.0, "anti", 50.0)  # one of the first three
    assert old is not None
    moments.add(data[5:6])

    young = moments.draw(6.0, "last", 1.0)
    assert young is not None
    assert set(young.ids.tolist()) == {int(old.ids), 5}


def test_a_stream_without_boundaries_is_rehearsed_from_its_second_step_on() -> None:
    """`ratio` old samples per new one, fractions carried on: 0.25 of single samples is every fourth step."""
    made = PowerLawRehearsal(capacity=5, ratio=0.25, mode="stochastic")
    met, one = watched(made), learner(made, Toy("online", frozenset()), size=1)
    data = stream(1)[0].train
    for i in range(24):
        one.partial_fit(data.x[i : i + 1], data.y[i : i + 1])

    assert [len(step) for step in met] == [0, 0, 0, 1] * 6
    assert all(i < step for step, ids in enumerate(met) for i in ids)
    assert len(made.met) == 5


@pytest.mark.parametrize(("ratio", "capacity"), [(3.0, 5), (1.0, 12)])
def test_no_sample_comes_twice_in_a_step(ratio: float, capacity: int) -> None:
    made = PowerLawRehearsal(capacity=capacity, ratio=ratio, mode="stochastic", buffer="balanced")
    met, one = watched(made), learner(made)
    for experience in stream(2):
        one.fit(experience, 2)
    assert all(len(set(ids)) == len(ids) for ids in met)
    assert max(map(len, met)) == min(capacity, round(ratio * 7))


# ---- the laws of all strategies, in the modes that are not the default

VARIANTS: dict[str, dict[str, Any]] = {
    "budget": {"budget": 30, "buffer": "balanced"},
    "proportional": {"mode": "proportional"},
    "stochastic": {"mode": "stochastic"},
    "stochastic balanced": {"mode": "stochastic", "buffer": "balanced", "kernel": "exponential"},
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.slow
def test_every_mode_obeys_the_laws(variant: str, law: str) -> None:
    """Exact resume in mid-epoch, inert at ratio 0, bounded, needs enforced and the others."""
    make = partial(PowerLawRehearsal, **VARIANTS[variant])
    make.strength = PowerLawRehearsal.strength  # type: ignore[attr-defined]
    assert LAWS[law](make) is None


def test_a_stream_without_boundaries_is_remembered_better_than_without_rehearsal() -> None:
    """Class after class, each of 1,000 images once, ten at a time; nobody says where a class ends."""
    data, found = load("fashion-mnist-small"), {}
    rows = data.train.y[:1000].argsort(stable=True)
    for ratio in (0.0, 1.0):
        spec = {"backbone": {"name": "mlp", "inputs": [1, 28, 28], "hidden": [32]}, "head": {"name": "linear"}}
        strategy = PowerLawRehearsal(200, ratio, mode="stochastic")
        one = Learner(build(spec), strategy, optim=Optim(lr=0.05), batch_size=10, setting=Toy("online", frozenset()))
        one.partial_fit(data.train.x[rows], data.train.y[rows])
        assert data.test is not None
        right = torch.tensor(one.predict(data.test.x)) == data.test.y
        found[ratio] = float(right.float().mean())
    assert found[1.0] > found[0.0] + 0.2
