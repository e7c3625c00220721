"""Averaged GEM: a step that would raise the loss on remembered samples is turned until it does not.

Source: Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM", equation 11.
Differs: the memory is bounded for the whole stream and shared equally by the finished experiences. The promise is
    about the gradient: momentum and Adam add older directions to it, so use plain SGD where it has to hold for the
    step.
Checked: after the projection the inner product with the reference gradient is at least 0, and a gradient that agrees
    is not touched, by property (tests/test_gem.py); samples=0 equals naive bit for bit (laws).
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy, gradients
from lifelong.learning.samples import Episodes
from lifelong.learning.strategy import KINDS, State
from lifelong.types import Batch, Experience, Output


def turned(g: Tensor, reference: Tensor) -> Tensor:
    """Return the vector `[P]` nearest to `g` whose inner product with `reference` is at least 0."""
    product = g.double() @ reference.double()  # products of long float32 vectors lose the sign near 0
    if product >= 0:
        return g
    return g - (product / reference.double().square().sum()).to(g) * reference


@final
class AveragedGEM(Strategy):
    """Project each gradient onto the half-space where a random batch of the past does not get worse.

    Args:
        capacity: Samples kept of all finished experiences together.
        samples: Of the reference gradient in each step; 0 never projects.
        seed: Of the memory's own generators.
    """

    needs = Needs(distributed=True, boundaries=True, scenarios=KINDS - {"online"})
    uses = frozenset({"weights"})
    strength = "samples"

    def __init__(self, capacity: int = 1000, samples: int = 256, seed: int = 0) -> None:
        if samples < 0:
            raise ConfigError(f"samples must be at least 0, got {samples}")
        self.samples, self.memory = samples, Episodes(capacity, seed)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a sample of the experience."""
        self.memory.begin(experience)

    def project(self, model: nn.Module) -> None:
        """Turn the gradient if it disagrees with the past's."""
        if self.samples and len(self.memory):
            past = self.memory.draw(min(self.samples, len(self.memory)))
            gradients.replace(model, turned(gradients.current(model), gradients.of_loss(model, past)))

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
