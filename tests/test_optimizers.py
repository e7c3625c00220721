"""Optimizers whose state follows parameters by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning.optimizers import Optim, advance, load_named_state, named_state, trained
from lifelong.models import build

MLP = {"name": "mlp", "inputs": [4], "hidden": [6]}


def stepped(optimizer: torch.optim.Optimizer, gradients: dict[nn.Parameter, Tensor]) -> None:
    for p, g in gradients.items():
        p.grad = g.clone()
    optimizer.step()


@pytest.mark.parametrize("optim", [Optim(momentum=0.9), Optim(name="adam"), Optim(name="adamw", weight_decay=0.1)])
def test_old_entries_go_on_as_if_nothing_had_grown(optim: Optim) -> None:
    """The old rows of a grown parameter move like those of one that never grew, bit for bit."""
    random = torch.Generator().manual_seed(0)
    small = nn.Parameter(torch.randn(2, 3, generator=random))
    same = nn.Parameter(small.detach().clone())
    never = optim.make([small])
    before = optim.make([same])
    for _ in range(3):
        gradient = torch.randn(2, 3, generator=random)
        stepped(never, {small: gradient})
        stepped(before, {same: gradient})

    grown = nn.Parameter(torch.cat([same.detach(), torch.zeros(2, 3)]))
    after = optim.make([grown])
    load_named_state(after, {"w": grown}, named_state(before, {"w": same}))
    gradient = torch.randn(4, 3, generator=random)
    stepped(never, {small: gradient[:2]})
    stepped(after, {grown: gradient})

    assert torch.equal(grown.detach()[:2], small.detach())
    for value in after.state[grown].values():
        assert not value.dim() or value.shape == grown.shape


def test_state_follows_names_not_positions() -> None:
    optim = Optim(momentum=0.5)
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    old = optim.make([a, b])
    stepped(old, {a: torch.ones(2), b: torch.full((2,), 5.0)})
    new = optim.make([b, a])
    load_named_state(new, {"b": b, "a": a, "c": nn.Parameter(torch.zeros(1))}, named_state(old, {"a": a, "b": b}))

    assert new.state[a]["momentum_buffer"].tolist() == [1.0, 1.0]
    assert new.state[b]["momentum_buffer"].tolist() == [5.0, 5.0]


def test_named_state_is_a_copy_and_so_is_what_is_loaded() -> None:
    optim, p = Optim(momentum=0.5), nn.Parameter(torch.zeros(2))
    optimizer = optim.make([p])
    stepped(optimizer, {p: torch.ones(2)})
    saved = named_state(optimizer, {"p": p})
    again = optim.make([p])
    load_named_state(again, {"p": p}, saved)
    stepped(optimizer, {p: torch.ones(2)})
    stepped(again, {p: torch.ones(2)})

    assert saved["p"]["momentum_buffer"].tolist() == [1.0, 1.0]


def test_a_parameter_without_saved_state_starts_without_momentum() -> None:
    """Going back to a state before the first step must not keep what came after it."""
    optim, p = Optim(momentum=0.5), nn.Parameter(torch.zeros(2))
    optimizer = optim.make([p])
    before = named_state(optimizer, {"p": p})
    stepped(optimizer, {p: torch.ones(2)})
    load_named_state(optimizer, {"p": p}, before)

    assert named_state(optimizer, {"p": p}) == before == {}


def test_only_what_requires_a_gradient_trains() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)

    assert list(trained(model)) == ["1.weight", "1.bias"]


@pytest.mark.parametrize(
    "settings", [{"lr": 0}, {"lr": float("nan")}, {"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="need lr > 0"):
        Optim(**settings)


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'adam'"):
        Optim(name="adamm")


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_names_are_those_of_torch(name: str, kind: type[torch.optim.Optimizer]) -> None:
    optimizer = Optim(name=name, lr=0.125, weight_decay=0.25).make([nn.Parameter(torch.zeros(1))])

    assert isinstance(optimizer, kind)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.125, 0.25)


def test_what_trains_is_what_torch_lists_and_in_its_order() -> None:
    """Also where a module or a parameter has two names (it counts under its first), or is frozen."""
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": nn.Sequential(shared, nn.ReLU(), shared), "b": nn.Linear(3, 2), "c": nn.Linear(3, 3)})
    model["c"].weight = model["b"].bias
    model["b"].weight.requires_grad_(False)

    expected = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert list(trained(model)) == list(expected)
    assert all(p is expected[name] for name, p in trained(model).items())


@pytest.mark.parametrize("optim", [Optim(), Optim(momentum=0.9), Optim(weight_decay=0.1), Optim(name="adam")], ids=str)
def test_a_step_is_that_of_torch_bit_for_bit(optim: Optim) -> None:
    """A parameter without a gradient stays where it is."""
    torch_, ours = (build({"backbone": MLP, "head": {"name": "linear", "classes": 3}}) for _ in range(2))
    theirs, mine = (optim.make(list(model.parameters())) for model in (torch_, ours))
    for turn in range(3):
        for model in (torch_, ours):
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(turn))
            model.zero_grad()
            out = model(x)
            (out.features if turn == 1 else out.logits).square().sum().backward()
        theirs.step()
        advance(mine, trained(ours).values())

    for one, other in zip(torch_.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one, other)
