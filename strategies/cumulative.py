"""Train on everything seen so far, going on from where the model is.

Source: the usual baseline ("cumulative").
Differs: nothing.
Checked: each pass takes every sample seen so far exactly once (tests/test_strategies.py); ends where Avalanche's
    `Cumulative` does (tests/test_peers.py).
"""

from __future__ import annotations

from typing import final

from torch import nn

from lifelong.labels import LabelMap
from lifelong.learning import Needs, Strategy
from lifelong.learning.samples import Everything
from lifelong.learning.strategy import KINDS, State
from lifelong.types import Experience


@final
class Cumulative(Strategy):
    """Pass over all samples of all experiences so far, as `joint` does, but keep the weights.

    Early samples are passed over once per experience. Memory and time per experience grow without bound.
    """

    needs = Needs(distributed=True, boundaries=True, bounded=False, scenarios=KINDS - {"online"})
    exempt = {"flat cost": "it passes over everything seen so far"}  # noqa: RUF012 - a constant

    def __init__(self) -> None:
        self.samples = Everything()

    def prepare(self, experience: Experience, labels: LabelMap) -> Experience:
        """Return an experience of everything: what was seen before, then what is new."""
        return self.samples.prepare(experience, labels)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Count this experience's samples among those seen."""
        self.samples.end()

    def state(self) -> State:
        """Return all samples of finished experiences."""
        return {"samples": self.samples.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.samples.restore(state["samples"])

    def summary(self) -> dict[str, float]:
        """Return how many samples are kept."""
        return {"memory": float(len(self.samples))}
