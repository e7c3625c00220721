"""The hooks of a strategy, and several of them in a chain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lifelong import plugins
from lifelong.checks import Toy, digest, learner
from lifelong.errors import ConfigError
from lifelong.learning import Chain, Strategy
from lifelong.models import build
from lifelong.types import Batch, Experience, Output


def find(name: str, **arguments: Any) -> Strategy:
    made: Strategy = plugins.find("strategy", name)(**arguments)
    return made


class Spy(Strategy):
    """Writes down which hooks are called, and what they are given."""

    keeps_delta = True

    def __init__(self, log: list[str], name: str = "") -> None:
        self.log, self.name = log, name

    def adapt(self, model: nn.Module) -> None:
        self.log.append(f"{self.name}adapt")

    def begin(self, model: nn.Module, experience: Experience) -> None:
        self.log.append(f"{self.name}begin {model.classes}")

    def augment(self, batch: Batch) -> Batch:
        self.log.append(f"{self.name}augment {len(batch)}")
        return Batch.cat([batch, batch[:1]])

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor:
        self.log.append(f"{self.name}penalty {len(batch)}")
        return out.features.sum() * 0 + 1

    def project(self, model: nn.Module) -> None:
        self.log.append(f"{self.name}project {all(p.grad is not None for p in model.parameters())}")

    def project_delta(self, model: nn.Module, before: Any) -> None:
        same = [torch.equal(p, before[n]) for n, p in model.named_parameters()]
        self.log.append(f"{self.name}delta {any(same)}")
        for name, p in model.named_parameters():
            p.data.copy_(before[name])

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        self.log.append(f"{self.name}observe {len(batch)} {len(out.logits)}")

    def end(self, model: nn.Module, experience: Experience) -> None:
        self.log.append(f"{self.name}end")


def test_hooks_are_called_in_the_documented_order_with_what_they_are_promised() -> None:
    """And what project_delta writes is what stays: here, the weights of before."""
    log: list[str] = []
    made = learner(Spy(log))
    experience = Experience(0, "e", ["a", "b"], [(torch.ones(12), "a"), (-torch.ones(12), "b")])
    made.fit(experience)
    step = ["augment 2", "penalty 3", "project True", "delta False", "observe 2 2"]

    assert log == ["adapt", "begin 2", *step, "end"]
    start = build(made.model.spec(), seed=0)
    fresh = build({**start.spec(), "head": {"name": "linear"}}, seed=0)
    fresh.grow(2)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), made.model.parameters(), strict=True))
    assert made.counters["rehearsed"] == 1


def test_a_chain_applies_its_strategies_in_order_and_adds_their_penalties() -> None:
    log: list[str] = []
    chain = Chain(Spy(log, "1 "), Strategy(), Spy(log, "2 "))
    made = learner(chain)
    batch = Batch.of(torch.ones(2, 12), torch.tensor([0, 1]))
    made.labels.register(["a", "b"])
    made.step(batch)

    assert [line for line in log if "augment" in line] == ["1 augment 2", "2 augment 3"]
    assert [line.split()[0] for line in log] == ["1", "2"] * (len(log) // 2)
    assert chain.penalty(made.model, batch, made.outputs(batch.x)) == 2
    assert Chain(Strategy()).penalty(made.model, batch, made.outputs(batch.x)) is None
    with pytest.raises(ConfigError, match="a Chain takes strategies"):
        Chain()
    with pytest.raises(ConfigError, match="this state is of the chain"):
        Chain(Strategy()).restore(chain.state())


def test_an_inert_strategy_in_a_chain_changes_nothing() -> None:
    alone, chained = (
        learner(find("replay", capacity=12)),
        learner(Chain(find("powerlaw", ratio=0.0), find("replay", capacity=12), Strategy())),
    )
    for experience in Toy().experiences(2, 10):
        alone.fit(experience, 2)
        chained.fit(experience, 2)

    assert digest(alone.state()["model"]) == digest(chained.state()["model"])
