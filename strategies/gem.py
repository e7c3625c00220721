"""Gradient episodic memory: a step may raise the loss of no finished experience.

Source: Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory for Continual Learning", equations 8 to 12.
Differs: the memory is bounded for the whole stream and shared equally by the finished experiences, each a uniform
    sample instead of its last ones; the dual programme is solved by an exact active-set method on the Gram matrix, no
    ridge is added to it. The promise is about the gradient: use plain SGD where it has to hold for the step.
Checked: programme against all active sets, projection against its optimality conditions, by property
    (tests/test_gem.py).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy, gradients
from lifelong.learning.qp import nonnegative
from lifelong.learning.samples import Episodes
from lifelong.learning.strategy import KINDS, State
from lifelong.types import Batch, Experience, Output


def nearest(g: Tensor, past: Tensor, margin: float = 0.0) -> Tensor:
    """Return the vector nearest to `g` `[P]` that agrees with every row of `past` `[T, P]`.

    With a `margin` each multiplier is at least that large, which turns the result further towards the past.
    """
    rows = past.double()
    if bool((rows @ g.double() >= 0).all()):
        return g
    gram = rows @ rows.T
    least = torch.full((len(rows),), margin, dtype=torch.float64, device=g.device)
    v = nonnegative(gram.cpu(), (rows @ g.double() + gram @ least).cpu()).to(g.device) + least
    return (g.double() + v @ rows).to(g)


@final
class GEM(Strategy):
    """Project each gradient onto the cone in which no finished experience gets worse.

    Args:
        capacity: Samples kept of all finished experiences together; each step passes over all of them.
        margin: gamma >= 0, the least multiplier of a gradient that has to be turned at all.
        seed: Of the memory's own generators.
    """

    needs = Needs(distributed=True, boundaries=True, scenarios=KINDS - {"online"})
    uses = frozenset({"weights"})

    def __init__(self, capacity: int = 256, margin: float = 0.5, seed: int = 0) -> None:
        if margin < 0:
            raise ConfigError(f"margin must be at least 0, got {margin}")
        self.margin, self.memory = margin, Episodes(capacity, seed)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a sample of the experience."""
        self.memory.begin(experience)

    def project(self, model: nn.Module) -> None:
        """Turn the gradient if it disagrees with that of any finished experience."""
        if len(self.memory):
            past = gradients.of_losses(model, self.memory.finished)
            gradients.replace(model, nearest(gradients.current(model), past, self.margin))

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the experience's sample."""
        self.memory.observe(batch)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Count the experience among the past."""
        self.memory.end()

    def state(self) -> State:
        """Return the memory."""
        return {"memory": self.memory.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.memory.restore(state["memory"])

    def summary(self) -> dict[str, float]:
        """Return how many samples of finished experiences are kept."""
        return {"memory": float(len(self.memory))}
