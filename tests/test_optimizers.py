"""Optimizers whose state follows parameters by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning.optimizers import Optim, load_named_state, named_state, trained


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
