"""CUBER: three regimes per layer and old task, on top of TRGP."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong import checks
from lifelong.errors import ConfigError
from lifelong.learning import Learner, Optim, Strategy
from lifelong.models import build
from lifelong.models.layers import layers, matrix
from lifelong.types import Batch, Experience
from strategies.cuber import CUBER, agree
from strategies.trgp import TRGP

KW = {"threshold": 0.9, "samples": 60, "looks": 2}


def stream(tasks: int, kind: str = "domain-il") -> list[Experience]:
    """Tasks that differ by a small turn of the same two classes: old and new gradients often agree."""
    shared = torch.randn(4, 12, generator=torch.Generator().manual_seed(99))
    found = []
    for task in range(tasks):
        random = torch.Generator().manual_seed(task)
        y = torch.arange(60) % 2
        latent = torch.randn(60, 4, generator=random) + 1.5 * y[:, None]
        x = latent @ (shared + 0.3 * torch.randn(4, 12, generator=random)) / 4
        labels = y + (2 * task if kind == "task-il" else 0)
        data = Batch.of(x, labels, torch.arange(60) + 60 * task)
        found.append(Experience(task, f"t{task}", labels.unique().tolist(), data, data, task=task))
    return found


def learner(strategy: Strategy, kind: str = "domain-il", lr: float = 0.05) -> Learner:
    model = build({"backbone": {"name": "mlp", "inputs": [12], "hidden": [10, 8]}, "head": {"name": "linear"}}, seed=1)
    return Learner(model, strategy, optim=Optim(lr=lr), batch_size=10, setting=checks.Toy(kind))


def watched(strategy: CUBER, tasks: int = 4, epochs: int = 2) -> list[tuple[int, dict[str, dict[int, str]]]]:
    """Task and regimes of every layer after each step."""
    made, found = learner(strategy), []

    def note() -> None:
        if strategy.trust.task >= 0:
            found.append((strategy.trust.task, {n: strategy.regimes(n) for n in layers(made.model)}))

    for e in stream(tasks):
        made.fit(e, epochs, on_step=note)
    return found


@pytest.mark.parametrize("kind", ["task-il", "domain-il"])
def test_with_eps2_above_one_it_is_trgp_bit_for_bit(kind):
    """Shared weights, bases and scales; with eps2 = 0 it is not."""
    ends = []
    for strategy in (TRGP(eps=0.3, **KW), CUBER(0.3, 1.01, **KW), CUBER(0.3, 0.0, **KW)):
        made = learner(strategy, kind)
        for e in stream(3, kind):
            made.fit(e, 2)
        ends.append(checks.digest({"model": made.state()["model"], "scales": strategy.trust.scaling.state()}))

    assert ends[0] == ends[1]
    assert ends[2] != ends[0]


def test_regimes_are_a_partition_and_only_fall_within_a_task():
    """Each finished task is in exactly one; at most two are not in R1; R3 may only become R2."""
    strategy = CUBER(0.3, 0.0, **KW)
    steps = watched(strategy)
    assert any("R3" in r.values() for _, by_layer in steps for r in by_layer.values())
    fallen = 0
    for (task, now), (next_task, after) in pairwise(steps):
        for layer, regimes in now.items():
            assert set(regimes) == set(range(task))
            assert sum(r != "R1" for r in regimes.values()) <= 2
            chosen_by_then = any(r != "R1" for r in regimes.values())
            if task == next_task and chosen_by_then:
                for t, regime in regimes.items():
                    assert after[layer][t] == regime or (regime, after[layer][t]) == ("R3", "R2")
                    fallen += after[layer][t] != regime
    assert fallen > 0


def test_a_seldom_or_smoothed_check_gives_up_no_more_often():
    """A check that never comes keeps every free span free to the end."""

    def free_at_last(**arguments) -> int:
        last = dict(watched(CUBER(0.3, 0.0, **arguments, **KW)))
        return sum(r == "R3" for by_layer in last.values() for regimes in by_layer.values() for r in regimes.values())

    always, never, smooth = free_at_last(), free_at_last(check_every=10**6), free_at_last(smooth=0.99)
    assert always < never
    assert always <= smooth <= never


def test_a_smoothed_average_moves_in_every_step_and_is_judged_in_every_third():
    """By hand: of an old gradient of 1 and new ones of -2, halved in: -.5, -1.25, -1.625; only the last one counts."""
    strategy, one = CUBER(eps2=0.0, check_every=3, smooth=0.5), torch.ones(1, 1)
    strategy.old, strategy.anchors, strategy.average = {"l": {0: one}}, {"l": {0: one}}, {"l": one}
    strategy.trust.look, strategy.trust.now = lambda model: {}, lambda model: {"l": -2 * one}
    strategy._pull, strategy._free = lambda model: None, lambda name: None
    found = []
    for _ in range(4):
        strategy.project(None)
        found.append((float(strategy.average["l"]), 0 in strategy.anchors["l"]))

    assert found == [(1.0, True), (-0.5, True), (-1.25, True), (-1.625, False)]


@pytest.mark.parametrize("optim", [Optim(lr=0.05), Optim(name="adam", lr=0.01)])
def test_an_update_has_no_part_in_the_spans_of_r1_and_r2(optim):
    """Step by step, by the regimes that hold in it; in a free span it does have a part."""
    strategy = CUBER(0.3, 0.0, **KW)
    made = learner(strategy)
    made.optim = optim
    made._rebuild()
    inside, free, before = [], [], {}

    def measure() -> None:
        now = {n: matrix(m).detach().clone() for n, m in layers(made.model).items()}
        for name in before if strategy.trust.task > 0 else ():
            step, record = now[name] - before[name], strategy.trust.scaling.records[name]
            for t, regime in strategy.regimes(name).items():
                share = float((step @ record.basis(t)).norm() / step.norm().clamp(min=1e-9))
                if regime != "R3":
                    inside.append(share if step.norm() > 1e-3 else 0.0)
                else:
                    free.append(share)
        before.update(now)

    for e in stream(3):
        before.clear()
        made.fit(e, 2, on_step=measure)

    assert max(inside) < 1e-3
    assert max(free) > 0.01


def test_the_pull_is_the_gradient_of_its_closed_form():
    """Of pull * |(W - W_then) B|, not squared; 0 at distance 0."""
    strategy = CUBER(0.3, -1.0, pull=0.7, check_every=10**6, **KW)
    made = learner(strategy)
    first, second = stream(2)
    made.fit(first)
    strategy.begin(made.model, second)
    trust, model = strategy.trust, made.model
    name, layer = next(iter(layers(model).items()))
    record = trust.scaling.records[name]
    anchor = matrix(layer).detach() @ record.basis(0)
    for moved in (0.0, 0.1):
        with torch.no_grad():
            layer.weight += moved
        record.held = matrix(layer).detach() @ record.memory
        strategy.anchors = {name: {0: anchor}}
        strategy._free(name)
        layer.weight.grad, layer.bias.grad = torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)
        strategy._pull(model)
        found = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1)
        weight = matrix(layer).detach().requires_grad_()
        (0.7 * torch.linalg.vector_norm(weight @ record.basis(0) - anchor)).backward()
        torch.testing.assert_close(found, weight.grad, atol=1e-5, rtol=1e-4)
        assert bool(found.abs().sum() > 0) == bool(moved)


@pytest.mark.slow
def test_a_strong_pull_holds_free_spans_where_they_were():
    """Down to steps of its own size, lr * pull in each layer."""

    def moved(pull: float) -> float:
        strategy = CUBER(0.3, -1.0, pull=pull, check_every=10**6, **KW)
        made = learner(strategy, lr=0.01)
        first, second = stream(2)
        made.fit(first, 3)
        before = {n: matrix(m).detach().clone() for n, m in layers(made.model).items()}
        bases = {n: r.memory for n, r in strategy.trust.scaling.records.items()}
        made.fit(second, 10)
        return sum(float(((matrix(m).detach() - before[n]) @ bases[n]).norm()) for n, m in layers(made.model).items())

    assert moved(0.3) < 0.2 * moved(0.0)


@given(seed=st.integers(0, 2**31), least=st.floats(-1, 1), rows=st.integers(1, 3))
def test_agreement_is_the_cosine_on_common_rows(seed, least, rows):
    """A head that has grown is compared on the outputs that both gradients have."""
    random = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, 3, 4, generator=random, dtype=torch.float64)
    cosine = torch.nn.functional.cosine_similarity(one[:rows].flatten(), other[:rows].flatten(), dim=0)
    if abs(cosine - least) > 1e-9:
        assert agree(one[:rows], other, least) == bool(cosine >= least)
        assert agree(other, one[:rows], least) == bool(cosine >= least)


@pytest.mark.parametrize("wrong", [{"eps1": -1.0}, {"pull": -1.0}, {"check_every": 0}, {"smooth": 1.0}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CUBER(**wrong)


@pytest.mark.slow
def test_every_law_holds_but_that_it_keeps_something_of_each_task():
    assert [(v.law, v.outcome) for v in checks.check(CUBER) if v.outcome != "holds"] == [("bounded memory", "exempt")]
