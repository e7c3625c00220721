"""Models are built from plain values, from their own generator."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lifelong import plugins
from lifelong.errors import ConfigError, DataError, UnknownName
from lifelong.models import Classifier, build, outputs

MLP = {"name": "mlp", "inputs": [6], "hidden": [8], "features": 3}
SPECS: list[dict[str, Any]] = [
    {"backbone": MLP, "head": {"name": "linear", "classes": 2}},
    {"backbone": MLP, "head": {"name": "simplex", "classes": 4, "scale": 2.0}},
    {"backbone": MLP, "head": {"name": "prototype", "classes": 2, "normalise": False}},
    {"backbone": {"name": "identity", "inputs": [2, 3]}, "head": {"name": "linear"}},
    {"backbone": {"name": "conv", "inputs": [1, 4, 4], "channels": [2], "features": 3}, "head": {"name": "linear"}},
]


def same(a: nn.Module, b: nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("spec", SPECS)
def test_building_neither_reads_nor_touches_global_random_state(spec: dict[str, Any]) -> None:
    torch.rand(1)
    before = torch.random.get_rng_state()
    one = build(spec, seed=5)
    one.grow(4)
    assert torch.equal(torch.random.get_rng_state(), before)

    torch.rand(1)
    two = build(spec, seed=5)
    two.grow(4)
    assert same(one, two)


def test_another_seed_gives_other_weights_and_other_new_columns() -> None:
    one, two = build(SPECS[0], seed=1), build(SPECS[0], seed=2)
    one.grow(9)
    two.grow(9)

    assert not torch.equal(one.backbone.layers[0].weight, two.backbone.layers[0].weight)
    assert not torch.equal(one.head.weight[2:], two.head.weight[2:])


@pytest.mark.parametrize("draw", [True, False])
@pytest.mark.parametrize("spec", SPECS)
def test_the_current_spec_rebuilds_the_model_also_after_growth(spec: dict[str, Any], draw: bool) -> None:
    """Also where nothing was drawn: all that a model answers with is in its `state_dict`."""
    model = build(spec, seed=3)
    model.grow(4)
    again = build(json.loads(json.dumps(model.spec())), seed=4, draw=draw)
    again.load_state_dict(model.state_dict(), strict=True)
    x = torch.rand(3, *model.input_shape)

    assert again.spec() == model.spec()
    assert (again.input_shape, again.dim, again.family) == (model.input_shape, model.dim, model.family)
    assert torch.equal(again(x).logits, model(x).logits)
    assert again(x).logits.shape == (3, 4)


@pytest.mark.parametrize("spec", SPECS)
def test_every_weight_is_drawn_and_none_is_left_uninitialised(spec: dict[str, Any]) -> None:
    """Within torch's own bounds of 1/sqrt(fan in), and not all alike."""
    for name, weight in build(spec).named_parameters():
        assert weight.abs().max() <= 1 if len(weight) else True, name
        assert len(weight) < 2 or name.startswith("head.bias") or weight.unique().numel() > 1, name


def test_what_is_overwritten_next_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[nn.Module] = []
    monkeypatch.setattr(nn.init, "uniform_", lambda tensor, *_, **__: drawn.append(tensor) if tensor.is_cpu else None)
    spec = {"backbone": MLP, "head": {"name": "prototype"}}
    build(spec, draw=False)
    assert not drawn

    build(spec)
    assert drawn


def test_a_fresh_head_keeps_the_backbone() -> None:
    model = build(SPECS[0])
    kept = model.backbone
    model.with_head("prototype", normalise=False)

    assert model.backbone is kept
    assert model.family == "prototype"
    assert model.classes == 0


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"backbone": MLP}, ConfigError, "exactly the keys"),
        ({"backbone": MLP, "head": {"name": "linear"}, "x": 1}, ConfigError, "exactly the keys"),
        ({"backbone": MLP, "head": "linear"}, ConfigError, "needs a 'name'"),
        ({"backbone": MLP, "head": {"classes": 2}}, ConfigError, "needs a 'name'"),
        ({"backbone": MLP, "head": {"name": 3}}, ConfigError, "needs a 'name'"),
        ({"backbone": MLP, "head": {"name": "liner"}}, UnknownName, "did you mean 'linear'"),
        ({"backbone": {"name": "mlpp"}, "head": {"name": "linear"}}, UnknownName, "did you mean 'mlp'"),
        ({"backbone": {**MLP, "depth": 3}, "head": {"name": "linear"}}, ConfigError, "does not take .*depth"),
        ({"backbone": {"name": "mlp"}, "head": {"name": "linear"}}, ConfigError, "does not take"),
        ({"backbone": MLP, "head": {"name": "linear", "classes": "three"}}, ConfigError, "does not take"),
        ({"backbone": MLP, "head": {"name": "simplex", "classes": 9}}, ConfigError, "set the backbone's features=8"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line(spec: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


class Own(nn.Module):
    """A third party's backbone with weights that nobody knows how to draw."""

    def __init__(self, inputs: list[int], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.input_shape, self.dim = tuple(inputs), inputs[0]
        self.layer = nn.LayerNorm(inputs[0])
        self.weight = nn.Parameter(torch.ones(3))

    def spec(self) -> dict[str, Any]:
        return {"name": "own", "inputs": list(self.input_shape)}

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Normed(Own):
    def __init__(self, inputs: list[int]) -> None:
        super().__init__(inputs)
        del self.weight


def plug_in(monkeypatch: pytest.MonkeyPatch, kind: object) -> None:
    find = plugins.find
    monkeypatch.setattr(plugins, "find", lambda group, name: kind if name == "own" else find(group, name))


def test_weights_that_nobody_draws_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that was never written would otherwise pass for weights."""
    plug_in(monkeypatch, Own)
    with pytest.raises(ConfigError, match="Own has weights of its own and no reset"):
        build({"backbone": {"name": "own", "inputs": [4]}, "head": {"name": "linear"}})


def test_normalisation_layers_start_as_the_identity_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Normed)
    layer = build({"backbone": {"name": "own", "inputs": [4]}, "head": {"name": "linear"}}).backbone.layer

    assert layer.weight.tolist() == [1.0] * 4
    assert layer.bias.tolist() == [0.0] * 4


def test_a_plug_in_must_make_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, dict)
    with pytest.raises(ConfigError, match=r"must make an nn.Module, got dict"):
        build({"backbone": {"name": "own"}, "head": {"name": "linear"}})


def test_outputs_are_those_of_one_pass_whatever_the_pieces() -> None:
    model = build(SPECS[0]).double().train()
    x = torch.rand(7, 6, dtype=torch.float64)
    whole, pieces = model(x), outputs(model, x, size=3)

    torch.testing.assert_close(pieces.logits, whole.logits.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(pieces.features, whole.features.detach(), rtol=1e-12, atol=0)
    assert model.training
    assert not pieces.logits.requires_grad
    with pytest.raises(DataError, match="at least one sample"):
        outputs(model, x[:0])


def test_preprocessing_is_said_by_the_backbone() -> None:
    assert isinstance(build(SPECS[0]), Classifier)
    assert build(SPECS[0]).preprocessing == {"scale": "none"}
