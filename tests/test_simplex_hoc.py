"""The higher-order-dependency loss in closed form, where labels go on the simplex, and what a feature is held to."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Chain, Learner, Optim, Strategy
from lifelong.models import build
from lifelong.models.heads import SimplexHead
from lifelong.types import Batch, Experience
from strategies.replay import Replay
from strategies.simplex import Simplex
from strategies.simplex_hoc import SimplexHOC, hoc

seeds = st.integers(0, 2**31)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(count=st.integers(1, 9), mu=st.floats(0.1, 20), seed=seeds)
def test_a_batch_of_one_class_is_pulled_without_end(count: int, mu: float, seed: int) -> None:
    """-mu cos + ln B in the reference form; in the textbook form nothing is left to contrast with."""
    new, old, y = normal(count, 5, seed=seed), normal(count, 5, seed=seed + 1), torch.zeros(count, dtype=torch.int64)
    cosine = F.cosine_similarity(new, old, dim=1)
    torch.testing.assert_close(hoc(new, old, y, mu), -mu * cosine.mean() + log(count), rtol=0, atol=1e-9)
    torch.testing.assert_close(hoc(new, old, y, mu, "textbook"), torch.tensor(0.0).double(), rtol=0, atol=1e-9)


def test_the_reference_value_of_eight_equal_samples() -> None:
    z, y = normal(8, 5), torch.zeros(8, dtype=torch.int64)
    assert hoc(z, z, y).item() == pytest.approx(-10 + log(8))  # -7.92


def test_both_forms_by_hand() -> None:
    """Axes 0 and 1, of classes 0 and 1, and a second sample of class 0 on axis 1: mu = 1."""
    z, y = torch.eye(2).double()[[0, 1, 1]], torch.tensor([0, 1, 0])
    reference = [log(2 + 1) - 1, log(1 + 1 + exp(1)) - 1, log(2 + exp(1)) - 1]
    textbook = [log(exp(1) + 1) - 1, log(exp(1) + 1 + exp(1)) - 1, log(exp(1) + exp(1)) - 1]
    assert hoc(z, z, y, 1.0).item() == pytest.approx(sum(reference) / 3)
    assert hoc(z, z, y, 1.0, "textbook").item() == pytest.approx(sum(textbook) / 3)


def test_rows_are_old_and_columns_new() -> None:
    """Three classes whose old features are one: S is 1, 0, -1 in every row; exchanged, in every column."""
    old, new = torch.eye(2).double()[[0, 0, 0]], torch.tensor([[1, 0], [0, 1], [-1, 0]]).double()
    reference = [log(1 + 1 + exp(-1)) - 1, log(exp(1) + 1 + exp(-1)), log(exp(1) + 1 + 1) + 1]
    textbook = 3 * [log(exp(1) + 1 + exp(-1))]
    assert hoc(new, old, torch.arange(3), 1.0).item() == pytest.approx(sum(reference) / 3)
    assert hoc(new, old, torch.arange(3), 1.0, "textbook").item() == pytest.approx(sum(textbook) / 3)


@given(seed=seeds, form=st.sampled_from(["reference", "textbook"]))
def test_only_directions_count_and_a_joint_rotation_changes_nothing(seed: int, form: str) -> None:
    new, old, y = normal(6, 4, seed=seed), normal(6, 4, seed=seed + 1), torch.arange(6) % 3
    turn = torch.linalg.qr(normal(4, 4, seed=seed + 2)).Q
    longer = torch.arange(1, 7, dtype=torch.float64)[:, None]
    value = hoc(new, old, y, form=form)
    torch.testing.assert_close(hoc(new * longer, old * longer.flip(0), y, form=form), value, rtol=0, atol=1e-9)
    torch.testing.assert_close(hoc(new @ turn, old @ turn, y, form=form), value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", ["reference", "textbook"])
def test_no_gradient_reaches_the_old_features(form: str) -> None:
    new, old = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    hoc(new, old, torch.arange(4), form=form).backward()
    assert old.grad is None
    assert new.grad is not None
    assert new.grad.abs().sum() > 0


@given(classes=st.integers(2, 40), scale=st.none() | st.floats(0.5, 20), seed=seeds)
def test_downwards_class_c_takes_the_vertex_k_minus_1_minus_c(classes: int, scale: float | None, seed: int) -> None:
    """So two models of n and m classes use different vertices of one interface as long as n + m <= K."""
    up = SimplexHead(classes - 1, classes, scale)
    down = SimplexHead(classes - 1, classes, scale, downwards=True)
    z = normal(3, classes - 1, seed=seed)
    assert torch.equal(down.vertices(), up.vertices().flip(0))
    assert torch.equal(down(z), up(z).flip(1))
    assert down.family == f"{up.family}-down"
    assert build({"backbone": {"name": "identity", "inputs": [classes - 1]}, "head": down.spec()}).head.downwards


@pytest.mark.parametrize("kind", [Simplex, SimplexHOC])
def test_the_strategies_place_labels_where_they_are_told(kind: Any) -> None:
    made = learner(kind(classes=8, downwards=True))
    assert made.model.head.downwards


def samples(index: int, count: int = 16) -> Experience:
    random = torch.Generator().manual_seed(index)
    y = torch.arange(count) % 2 + 2 * index
    data = Batch.of(torch.randn(count, 4, generator=random) + y[:, None], y, torch.arange(count) + 100 * index)
    return Experience(index, f"e{index}", [2 * index, 2 * index + 1], data, data)


def learner(strategy: Strategy, seed: int = 0) -> Learner:
    spec = {"backbone": {"name": "mlp", "inputs": [4], "hidden": [6], "features": 7}, "head": {"name": "linear"}}
    return Learner(build(spec, seed=seed), strategy, optim=Optim(lr=0.05), batch_size=4, seed=seed)


class Seen(Exception):
    """After the first step."""


def first_loss(made: Learner, experience: Experience) -> tuple[Batch, float]:
    """The batch and the loss of the first step of an experience, before that step changes anything."""
    found: list[tuple[Batch, float]] = []
    strategy, loss = made.strategy, made.strategy.loss

    def noting(model: Any, batch: Batch, out: Any) -> Any:
        value = loss(model, batch, out)
        found.append((batch, torch.nan if value is None else value.item()))
        raise Seen

    strategy.loss = noting  # type: ignore[method-assign]
    with pytest.raises(Seen):
        made.fit(experience)
    return found[0]


def test_the_first_experience_has_nothing_to_be_held_to() -> None:
    assert (
        first_loss(learner(SimplexHOC(classes=8)), samples(0))[1]
        != first_loss(learner(SimplexHOC(classes=8, pretrained=True)), samples(0))[1]
    )
    a, b = learner(SimplexHOC(classes=8)), learner(Simplex(classes=8, scale=None, distill=0))
    a.fit(samples(0))
    b.fit(samples(0))
    assert torch.equal(a.embed(samples(0).train.x), b.embed(samples(0).train.x))


def test_after_a_replacement_features_are_held_to_what_replaced_them() -> None:
    """The loss of the first step is lambda CE + (1 - lambda) HOC(z, z): the replacing model is both."""
    made, better = learner(SimplexHOC(classes=8, ce=0.3)), learner(Simplex(classes=8, scale=None), seed=5)
    made.fit(samples(0))
    made.model.replace(better.model)
    batch, value = first_loss(made, samples(1))
    out = better.model(batch.x)
    expected = 0.3 * F.cross_entropy(out.logits, batch.y) + 0.7 * hoc(out.features, out.features, batch.y)
    assert value == pytest.approx(expected.item(), abs=1e-5)


def test_a_replacement_is_a_copy_with_the_same_interface() -> None:
    made, better = learner(SimplexHOC(classes=8)), learner(Simplex(classes=8), seed=5)
    made.model.replace(better.model)
    x = samples(0).train.x
    expected = better.embed(x)
    assert torch.equal(made.embed(x), expected)
    made.fit(samples(0))
    assert torch.equal(better.embed(x), expected)
    with pytest.raises(ConfigError, match="same interface"):
        made.model.replace(build({"backbone": {"name": "identity", "inputs": [4]}, "head": {"name": "linear"}}))


def test_a_replacement_of_another_architecture_survives_a_restart() -> None:
    spec = {"backbone": {"name": "mlp", "inputs": [4], "hidden": [9, 5], "features": 7}, "head": {"name": "linear"}}
    made, other = learner(Chain(Replay(9), SimplexHOC(classes=8))), learner(Chain(Replay(9), SimplexHOC(classes=8)))
    made.fit(samples(0))
    made.model.replace(build(spec, seed=3))
    other.restore(made.state())
    for one in (made, other):
        one.fit(samples(1), 2)
    assert torch.equal(made.embed(samples(0).train.x), other.embed(samples(0).train.x))


def test_a_strategy_that_never_reshapes_refuses_another_shape() -> None:
    made, other = learner(SimplexHOC(classes=8)), learner(Simplex(classes=8))
    made.model.replace(build({"backbone": {"name": "mlp", "inputs": [4], "hidden": [9], "features": 7},
                              "head": {"name": "linear"}}))  # fmt: skip
    state = {**made.state(), "shape": {}, "strategy": other.strategy.state()}
    with pytest.raises(ConfigError, match="of another model"):
        other.restore(state)


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"ce": 1.5}, {"mu": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="got"):
        SimplexHOC(**wrong)
    with pytest.raises(UnknownName, match="did you mean 'textbook'"):
        SimplexHOC(form="textbok")
