"""The laws hold for every installed strategy, and each law catches a strategy that breaks it."""

from typing import final

import pytest
import torch

from lifelong import checks, plugins
from lifelong.learning import Needs, Reservoir, Strategy
from lifelong.types import Batch
from strategies.replay import Replay

pytestmark = pytest.mark.slow  # together too long for `make fast`


@pytest.mark.slow
@pytest.mark.parametrize("name", plugins.names("strategy"))
def test_every_installed_strategy_obeys(name):
    broken = [v for v in checks.check(name) if v.outcome == "broken"]

    assert broken == []


@pytest.mark.parametrize("name", plugins.names("strategy"))
def test_an_exemption_names_a_law_and_a_reason(name):
    exempt = plugins.find("strategy", name).exempt

    assert set(exempt) <= set(checks.LAWS)
    assert all(exempt.values())


def outcome(make: type[Strategy], law: str) -> str:
    found = {v.law: v for v in checks.check(make)}
    return found[law].outcome


@final
class NoOp(Strategy):
    strength = "weight"

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight


@final
class Drifting(Strategy):
    strength = "weight"

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def penalty(self, model, batch, out):
        return (self.weight + 0.01) * out.features.square().mean()


@final
class Global(Strategy):
    def augment(self, batch):
        return Batch.cat([batch, batch.take(torch.randint(len(batch), (4,)))])


class Forgetful(Strategy):
    """Draws from a generator that it does not save."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)

    def augment(self, batch):
        return Batch.cat([batch, batch.take(torch.randint(len(batch), (4,), generator=self.random))])


@final
class Spent(Forgetful):
    """Saves its generator, and does not take a draw back."""

    def state(self):
        return {"random": self.random.get_state()}

    def restore(self, state):
        self.random.set_state(state["random"])


@final
class Hoarder(Strategy):
    def __init__(self) -> None:
        self.kept = []

    def observe(self, model, batch, out):
        self.kept.append(batch)

    def state(self):
        return {"kept": [b.state() for b in self.kept]}

    def restore(self, state):
        self.kept = [Batch(**b) for b in state["kept"]]


@final
class Sampler(Strategy):
    """Keeps ten numbers of every experience: nothing by the measure of samples."""

    def __init__(self) -> None:
        self.kept = []

    def end(self, model, experience):
        self.kept.append(torch.zeros(10))

    def state(self):
        return {"kept": list(self.kept)}

    def restore(self, state):
        self.kept = list(state["kept"])


@final
class Aliasing(Strategy):
    """Hands out its own tensor as its state."""

    def __init__(self) -> None:
        self.count = torch.zeros(1)

    def observe(self, model, batch, out):
        self.count += 1

    def state(self):
        return {"count": self.count}

    def restore(self, state):
        self.count = state["count"]


class Counting(Strategy):
    """Knows how many experiences have ended, and nothing else."""

    def __init__(self) -> None:
        self.past = 0

    def end(self, model, experience):
        self.past += 1

    def state(self):
        return {"past": self.past}

    def restore(self, state):
        self.past = state["past"]


@final
class Nostalgic(Counting):
    """Goes through all past experiences in each step; its state is one number."""

    def observe(self, model, batch, out):
        for _ in range(self.past):
            batch.x.sum()


@final
class Widening(Strategy):
    """Takes one operation in each step, on ever more numbers."""

    def __init__(self) -> None:
        self.steps = 0

    def observe(self, model, batch, out):
        self.steps += 1
        torch.ones(1000 * self.steps)

    def state(self):
        return {"steps": self.steps}

    def restore(self, state):
        self.steps = state["steps"]


@final
class Stubborn(Counting):
    """Learns the first experience only; of the later ones it keeps naming old classes."""

    def project(self, model):
        if self.past:
            for p in model.parameters():
                p.grad = None


@final
class Undeclared(Strategy):
    needs = Needs(scenarios=frozenset({"class-il", "online"}), boundaries=False)

    def __init__(self) -> None:
        self.memory = Reservoir(10)

    def state(self):
        return {"memory": self.memory.state(), "made_of": {1, 2}}


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (NoOp, "effective above zero"),
        (Drifting, "inert at zero"),
        (Global, "deterministic"),
        (Forgetful, "exact resume"),
        (Spent, "NaN refused"),
        (Stubborn, "new labels"),
        (Hoarder, "bounded memory"),
        (Sampler, "bounded memory"),
        (Nostalgic, "flat cost"),
        (Widening, "flat cost"),
        (Aliasing, "independent clone"),
        (Undeclared, "state round trip"),
    ],
)
def test_a_strategy_that_breaks_a_law_is_caught(make, law):
    assert outcome(make, law) == "broken"


def test_the_same_laws_hold_for_a_strategy_that_keeps_them():
    """The catchers above do not just say broken to everything."""
    found = {v.law: v.outcome for v in checks.check(Replay)}

    assert set(found.values()) == {"holds"}
