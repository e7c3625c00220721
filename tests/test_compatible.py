"""The geometry of the basis transformation, in float64, and how an update takes the place of a backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.errors import ConfigError
from lifelong.models import Classifier, build
from lifelong.models.compatible import Basis, LearnedBasis, folded, inherit, spaces, update
from lifelong.models.matrices import Rotation, cayley

seeds = st.integers(0, 2**31)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mlp(features: int, inputs: int = 5) -> dict[str, Any]:
    return {"name": "mlp", "inputs": [inputs], "hidden": [7], "features": features}


def learned(own: int, old: int, extra: int, c: float, seed: int = 0) -> LearnedBasis:
    """Maps that have moved far from I, in float64."""
    told = {"inner": mlp(own + old), "old": old, "extra": extra, "c": c}
    spec = {"backbone": {"name": "learned_basis", **told}, "head": {"name": "linear"}}
    made = build(spec, seed=seed).double().backbone
    assert isinstance(made, LearnedBasis)
    with torch.no_grad():
        made.turn.free.copy_(normal(old, old, seed=seed + 1))
        made.rotate.free.copy_(normal(own, own, seed=seed + 2))
    return made


sizes = {"own": st.integers(1, 9), "old": st.integers(1, 12), "extra": st.integers(1, 5)}


@given(dim=st.integers(1, 12), seed=seeds)
def test_a_rotation_is_orthogonal_whatever_its_weights(dim: int, seed: int) -> None:
    q = cayley(normal(dim, dim, seed=seed))
    torch.testing.assert_close(q.T @ q, torch.eye(dim, dtype=torch.float64), rtol=0, atol=1e-9)
    assert torch.equal(Rotation(dim)(), torch.eye(dim))


def test_a_rotation_stays_orthogonal_in_single_precision_over_300_steps() -> None:
    """And still moves: it finds a rotation that it was asked for."""
    turn, target = Rotation(6), cayley(0.3 * normal(6, 6)).float()
    optimizer = torch.optim.Adam(turn.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        (turn() - target).square().sum().backward()
        optimizer.step()
    q = turn().detach()
    torch.testing.assert_close(q.T @ q, torch.eye(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(q, target, rtol=0, atol=1e-3)


@settings(max_examples=40)
@given(**sizes, c=st.floats(0.1, 5), seed=seeds)
def test_every_feature_has_the_same_length(own: int, old: int, extra: int, c: float, seed: int) -> None:
    """|features|^2 = 1 + C^2, so the inner product ranks new against new as the cosine does."""
    made = learned(own, old, extra, c, seed)
    z = made(normal(4, 5, seed=seed))
    assert z.shape == (4, max(own, old) + extra) == (4, made.dim)
    expected = torch.full((4,), 1 + c * c, dtype=torch.float64)
    torch.testing.assert_close(z.square().sum(1), expected, rtol=0, atol=1e-9)


@settings(max_examples=40)
@given(**sizes, c=st.floats(0.1, 5), seed=seeds)
def test_the_new_models_own_embedding_is_contained_whole(own: int, old: int, extra: int, c: float, seed: int) -> None:
    """<z, z'> = <psi, psi'> + C^2 <p, p'>, and p comes back out of z."""
    made = learned(own, old, extra, c, seed)
    x = normal(4, 5, seed=seed)
    z, b = made(x), made.net.inner(x)
    p = b[:, :own] / b[:, :own].norm(dim=1, keepdim=True)
    psi = made.net.expand(b.clamp(min=0))
    psi = psi / psi.norm(dim=1, keepdim=True)

    torch.testing.assert_close(z @ z.T, psi @ psi.T + c * c * p @ p.T, rtol=0, atol=1e-8)
    torch.testing.assert_close(made.own(z), p, rtol=0, atol=1e-8)


@settings(max_examples=40)
@given(**sizes, seed=seeds)
@pytest.mark.slow
def test_the_served_version_gives_the_features_of_the_trained_one(own: int, old: int, extra: int, seed: int) -> None:
    """One matrix instead of two maps; it trains nothing, and its spec and weights rebuild it."""
    made = learned(own, old, extra, 2.0, seed)
    x = normal(4, 5, seed=seed)
    expected = made(x)
    served = made.served()
    torch.testing.assert_close(served(x), expected, rtol=0, atol=1e-9)
    assert not any(p.requires_grad for p in served.parameters())

    again = build({"backbone": served.spec(), "head": {"name": "linear"}}).double().backbone
    again.load_state_dict(served.state_dict())
    assert torch.equal(again(x), served(x))


def test_the_two_maps_by_hand() -> None:
    """O turns the first two of three coordinates, P the last two."""
    o = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    p = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    u = torch.tensor([1.0, 2.0, 3.0])
    assert (folded(o, p, 3) @ u).tolist() == [-3.0, 1.0, 2.0]  # P: [1, 3, 2]; O: [-3, 1], 2


def test_a_large_c_leaves_the_ranking_of_the_new_models_own_embedding() -> None:
    made = learned(6, 6, 3, 1000.0)
    x = normal(30, 5, seed=3)
    z, b = made(x), made.net.inner(x)[:, :6]
    own = b / b.norm(dim=1, keepdim=True)
    assert torch.equal((z @ z.T).argsort(1), (own @ own.T).argsort(1))


def model(features: int, seed: int = 0, classes: int = 3) -> Classifier:
    made = build({"backbone": mlp(features), "head": {"name": "linear"}}, seed=seed)
    made.grow(classes)
    return made


@pytest.mark.parametrize(("own", "old"), [(6, 6), (6, 4), (4, 9)])
def test_an_update_goes_on_from_the_weights_that_there_are(own: int, old: int) -> None:
    """Its own part and the new model by itself begin as the present model; only the rest is drawn."""
    now = model(own)
    made = update(now, [old], 2, 2.0)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert made.dim == max(own, old) + 2
    torch.testing.assert_close(made.net.inner(x)[:, :own], now.backbone(x))
    torch.testing.assert_close(made.twin(x), now.backbone(x))
    assert made.twin_head.classes == 3


def test_a_chain_of_updates_grows_by_extra_each() -> None:
    now, widths = model(6), []
    for _ in range(4):
        now.backbone = update(now, spaces(now), 2, 2.0).served()
        now.with_head("linear", classes=3)
        widths.append(now.dim)
        assert isinstance(now.backbone, Basis)
        assert now.backbone.net.own == 6
    assert widths == [8, 10, 12, 14]
    assert spaces(now) == spaces(build(now.spec())) == [6, 8, 10, 12, 14]


def test_a_new_model_that_is_trained_already_does_not_train() -> None:
    new = model(9, seed=4)
    made = update(model(6), [6], 2, 2.0, new)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.twin(x), new.backbone(x))
    assert not any(p.requires_grad for p in [*made.twin.parameters(), *made.twin_head.parameters()])
    assert made.net.own == 9
    again = build({"backbone": made.spec(), "head": {"name": "linear"}}).backbone
    assert not any(p.requires_grad for p in again.twin.parameters())


def test_widths_that_cannot_be_are_refused() -> None:
    for told in ({"old": 0}, {"old": 8}, {"extra": 0}, {"c": 0.0}, {"older": [4]}, {"older": [3, 2]}, {"older": [0]}):
        arguments = {"name": "basis", "inner": mlp(8), "old": 4, "extra": 2, "c": 2.0, **told}
        with pytest.raises(ConfigError, match="got"):
            build({"backbone": arguments, "head": {"name": "linear"}})
    with pytest.raises(ConfigError, match="must have 4 features, got 3"):
        told = {"name": "learned_basis", "inner": mlp(8), "old": 4, "extra": 2, "twin": mlp(3)}
        build({"backbone": told, "head": {"name": "linear"}})


def test_what_has_another_shape_is_not_inherited() -> None:
    a, b = (
        model(4).backbone,
        build({"backbone": {**mlp(6), "hidden": [9]}, "head": {"name": "linear"}}, seed=5).backbone,
    )
    before = {name: t.clone() for name, t in b.state_dict().items()}
    inherit(b, a)
    same = {name for name, t in b.state_dict().items() if torch.equal(t, before[name])}
    assert same == {"layers.2.weight"}
    assert torch.equal(b.state_dict()["layers.2.bias"][:4], a.state_dict()["layers.2.bias"])
