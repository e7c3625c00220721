"""Gradient episodic memory: the programme against all active sets, the projections against their conditions."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lifelong.checks import Toy, digest, learner
from lifelong.errors import ConfigError
from lifelong.learning import Learner, Optim, gradients
from lifelong.learning.qp import nonnegative
from lifelong.learning.samples import Episodes
from lifelong.models import build
from lifelong.types import Batch, Experience
from strategies.agem import AveragedGEM, turned
from strategies.gem import GEM, nearest

seeds = st.integers(0, 2**31)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def value(p: Tensor, q: Tensor, v: Tensor) -> float:
    return float(v @ p @ v / 2 + q @ v)


def brute(p: Tensor, q: Tensor) -> float:
    """The least value over all 2^T sets of free indices whose stationary point is not negative."""
    best = 0.0
    for chosen in product([False, True], repeat=len(q)):
        free = torch.tensor(chosen)
        v = torch.zeros_like(q)
        v[free] = torch.linalg.pinv(p[free][:, free]) @ -q[free]
        if bool((v >= -1e-12).all()):
            best = min(best, value(p, q, v))
    return best


@given(size=st.integers(1, 7), width=st.integers(1, 9), scale=st.integers(-6, 6), seed=seeds)
def test_the_programme_has_the_value_of_the_best_active_set(size: int, width: int, scale: int, seed: int) -> None:
    """Also with more rows than dimensions (a singular matrix), and whatever the unit of the gradients."""
    a = drawn(size, width, seed=seed) * 10.0**scale
    b = drawn(width, seed=seed + 1) * 10.0**scale
    p, q = a @ a.T, a @ b
    v = nonnegative(p, q)
    unit = float(b @ b)

    assert bool((v >= 0).all())
    assert abs(value(p, q, v) - brute(p, q)) <= 1e-9 * unit


@given(size=st.integers(1, 6), seed=seeds)
def test_equal_rows_do_no_harm(size: int, seed: int) -> None:
    row, b = drawn(1, 3, seed=seed), drawn(3, seed=seed + 1)
    a = row.expand(size, 3)
    found, single = nonnegative(a @ a.T, a @ b), nonnegative(row @ row.T, row @ b)

    torch.testing.assert_close(found.sum(), single.sum(), rtol=1e-9, atol=1e-9)


@given(tasks=st.integers(1, 6), width=st.integers(2, 12), seed=seeds)
@example(tasks=6, width=3, seed=2966)  # rounding left a blocking multiplier above 0: the search did not end
def test_gem_gives_the_nearest_gradient_that_agrees_with_every_experience(tasks: int, width: int, seed: int) -> None:
    """Optimality of the primal: feasible, a nonnegative mix away, and complementary."""
    g, past = drawn(width, seed=seed), drawn(tasks, width, seed=seed + 1)
    z = nearest(g, past)
    slack = past @ z
    v = torch.linalg.pinv(past @ past.T) @ past @ (z - g)

    assert bool((slack >= -1e-9).all())
    assert float((z - g) @ z) == pytest.approx(0.0, abs=1e-8)  # the residual is orthogonal to the projection
    if tasks <= width:
        assert bool((v >= -1e-7).all())
        torch.testing.assert_close(z, g + v @ past, rtol=1e-7, atol=1e-7)
    assert torch.equal(nearest(g, (past @ g).sign()[:, None] * past), g)  # all agree: untouched


@given(tasks=st.integers(1, 5), margin=st.floats(0, 2), seed=seeds)
def test_a_margin_is_the_least_multiplier(tasks: int, margin: float, seed: int) -> None:
    g, past = drawn(12, seed=seed), drawn(tasks, 12, seed=seed + 1)
    assume(bool((past @ g < 0).any()))
    z = nearest(g, past, margin)
    v = torch.linalg.pinv(past @ past.T) @ past @ (z - g)

    assert bool((past @ z >= -1e-9).all())
    assert bool((v >= margin - 1e-7).all())


@given(width=st.integers(1, 300), seed=seeds)
def test_after_agem_the_gradient_agrees_with_the_reference(width: int, seed: int) -> None:
    """In float32; one that agrees already is not touched; what is taken away is a multiple of the reference."""
    g, reference = drawn(width, seed=seed).float(), drawn(width, seed=seed + 1).float()
    z = turned(g, reference)

    assert float(z.double() @ reference.double()) >= -1e-5 * float(g.norm() * reference.norm())
    if float(g.double() @ reference.double()) >= 0:
        assert z is g
    else:
        gone = z.double() - g.double()
        cosine = F.cosine_similarity(gone, reference.double(), dim=0)
        assert float(cosine) == pytest.approx(1.0, abs=1e-4)


def test_gradients_are_read_and_written_in_one_order() -> None:
    made = learner(AveragedGEM())
    made.model.grow(2)
    x, y = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 1])
    F.cross_entropy(made.model(x).logits, y).backward()
    g = gradients.current(made.model)

    torch.testing.assert_close(g, gradients.of_loss(made.model, Batch.of(x, y)))
    torch.testing.assert_close(gradients.current(made.model), g)  # of_loss leaves the gradients in place
    gradients.replace(made.model, 2 * g)
    torch.testing.assert_close(gradients.current(made.model), 2 * g)


@pytest.mark.parametrize("make", [lambda: GEM(margin=0.0), lambda: AveragedGEM(samples=1000)])
def test_a_plain_step_follows_a_gradient_that_agrees_with_the_past(make) -> None:
    """In the loop: with SGD, what the weights did is an ascent for no remembered loss."""
    strategy = make()
    spec = {"backbone": {"name": "mlp", "inputs": [12], "hidden": [8]}, "head": {"name": "linear"}}
    made = Learner(build(spec), strategy, optim=Optim(lr=0.02), batch_size=8)
    stream = list(Toy().experiences(3))
    products: list[float] = []
    project, turns = strategy.project, [0]

    def watching(model) -> None:
        before = gradients.current(model)
        state = strategy.memory.random.get_state()
        project(model)
        if strategy.memory.finished:
            z = gradients.current(model)
            turns[0] += not torch.equal(before, z)
            strategy.memory.random.set_state(state)
            every = strategy.memory.finished if isinstance(strategy, GEM) else [Batch.cat(strategy.memory.finished)]
            for batch in every:
                reference = gradients.of_loss(model, batch)
                products.append(float(z @ reference / (z.norm() * reference.norm() + 1e-12)))

    strategy.project = watching
    for experience in stream:
        made.fit(experience, 3)
    assert turns[0] > 0
    assert min(products) >= -1e-4


def test_a_strategy_turns_by_its_margin() -> None:
    """In the loop: what a turned gradient was given is at least that multiple of each finished experience's own."""
    strategy = GEM(margin=0.5)
    spec = {"backbone": {"name": "mlp", "inputs": [12], "hidden": [8]}, "head": {"name": "linear"}}
    made = Learner(build(spec), strategy, optim=Optim(lr=0.02), batch_size=8)
    project, multipliers = strategy.project, list[float]()

    def watching(model) -> None:
        before = gradients.current(model)
        project(model)
        added = (gradients.current(model) - before).double()
        if added.any():
            past = gradients.of_losses(model, strategy.memory.finished).double()
            multipliers.extend((torch.linalg.pinv(past @ past.T) @ past @ added).tolist())

    strategy.project = watching
    for experience in Toy().experiences(3):
        made.fit(experience)
    assert multipliers
    assert min(multipliers) >= 0.5 - 1e-3


@settings(max_examples=30)
@given(capacity=st.integers(1, 20), sizes=st.lists(st.integers(1, 15), min_size=1, max_size=8), seed=seeds)
def test_episodes_share_their_room_equally_and_the_oldest_go(capacity: int, sizes: list[int], seed: int) -> None:
    memory, shares = Episodes(capacity, seed), []
    for index, size in enumerate(sizes):
        batch = Batch.of(torch.zeros(size, 1), torch.full((size,), index), torch.arange(size))
        memory.begin(Experience(index, "e", [], batch))
        memory.observe(batch)
        memory.observe(batch)  # a second pass
        memory.end()
    kept = list(range(len(sizes)))[-capacity:]
    shares = [int(batch.y[0]) for batch in memory.finished]

    assert shares == kept
    assert len(memory) <= capacity
    assert all(len(b) <= capacity // len(kept) and len(b.ids.unique()) == len(b) for b in memory.finished)
    twin = Episodes(capacity)
    twin.restore(memory.state())
    assert digest(twin.state()) == digest(memory.state())
    assert torch.equal(twin.draw(3).ids, memory.draw(3).ids)


@pytest.mark.parametrize("make", [lambda: GEM(margin=-1), lambda: AveragedGEM(samples=-1), lambda: GEM(capacity=0)])
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(ConfigError, match="got"):
        make()


def test_gradients_taken_together_are_those_taken_one_by_one() -> None:
    """Batches of one size share a pass; the order of the rows is that of the batches."""
    made = learner(GEM())
    parts = [next(iter(Toy().experiences(1))).train[a:b] for a, b in ((0, 3), (3, 4), (4, 7), (7, 8), (8, 13))]
    made.model.grow(2)
    found = gradients.of_losses(made.model, parts)

    assert found.shape[0] == len(parts)
    torch.testing.assert_close(found, torch.stack([gradients.of_loss(made.model, part) for part in parts]))
