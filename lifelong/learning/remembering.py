"""What strategies that offer each new sample once to one bounded memory have in common."""

from __future__ import annotations

from typing import Any

from torch import nn

from lifelong.learning.passes import FirstPass
from lifelong.learning.strategy import State, Strategy, Undo
from lifelong.types import Batch, Experience, Output


class Remembering(Strategy):
    """Offers the new samples of the first pass over an experience to `memory`; what is done with it, others say.

    Args:
        memory: Has `add(batch)`, `undo()`, `state()`, `restore(state)` and a length, such as `Reservoir`.
    """

    def __init__(self, memory: Any) -> None:  # noqa: ANN401 - of several shapes
        self.memory, self.first = memory, FirstPass()

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start counting the first pass."""
        self.first.begin(experience)

    def undo(self) -> Undo:
        """Return what takes back the step's draws."""
        back: Undo = self.memory.undo()
        return back

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the memory, once each."""
        self.memory.add(self.first.new(batch))

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Stop counting."""
        self.first.end()

    def state(self) -> State:
        """Return the memory and how far the first pass is."""
        return {"memory": self.memory.state(), "first": self.first.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.memory.restore(state["memory"])
        self.first.restore(state["first"])

    def summary(self) -> dict[str, float]:
        """Return how many samples are kept."""
        return {"memory": float(len(self.memory))}
