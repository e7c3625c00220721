"""Memory aware synapses: weights that the outputs are sensitive to are held in place; labels are not needed.

Source: Aljundi et al. 2018, "Memory Aware Synapses: Learning what (not) to forget", equations 2, 4 and 5.
Differs: sensitivity is a mean of absolute gradients of single samples, measured on a uniform sample of the experience
    after it (the paper allows any data); columns of a head that came later are free.
Checked: sensitivity against the closed form of a linear model, penalty against a hand computation
    (tests/test_mas.py); pull 0 equals naive bit for bit (laws).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy
from lifelong.learning.fisher import sensitivity
from lifelong.learning.quadratic import Quadratic
from lifelong.learning.samples import Sampled
from lifelong.learning.strategy import State
from lifelong.types import Batch, Experience, Output


@final
class MAS(Strategy):
    """Add pull * sum of Omega (w - w*)^2 to the loss, Omega = mean |d ||logits||^2 / dw|, summed over experiences.

    Args:
        pull: lambda; 0 leaves it out. Omega grows with the logits: tune it.
        samples: Samples of an experience that Omega is measured on, drawn uniformly.
        seed: Of the drawing of samples.
    """

    needs = Needs(
        distributed=True, boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"})
    )
    uses = frozenset({"weights"})
    strength = "pull"

    def __init__(self, pull: float = 0.02, samples: int = 256, seed: int = 0) -> None:
        if pull < 0:
            raise ConfigError(f"pull must be at least 0, got {pull}")
        self.pull, self.sampled, self.held = pull, Sampled(samples, seed), Quadratic()

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a sample of the experience."""
        self.sampled.begin(experience)

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return pull times the quadratic, None before the first experience has ended."""
        return self.pull * self.held.energy(model) if self.pull and self.held else None

    def weight_penalty(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]] | None:
        """Return the same with its gradients."""
        return self.held.pulling(weights, self.pull) if self.pull else None

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the experience's sample."""
        self.sampled.observe(batch)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Measure the sensitivity where the experience ended, and pull towards there."""
        batch = self.sampled.end()
        if batch is not None:
            self.held.move(dict(model.named_parameters()), sensitivity(model, batch))

    def state(self) -> State:
        """Return the quadratic and the running sample."""
        return {"held": self.held.state(), "sampled": self.sampled.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.held.restore(state["held"])
        self.sampled.restore(state["sampled"])

    def summary(self) -> dict[str, float]:
        """Return the mean stiffness over all weights."""
        every = [k.flatten() for k in self.held.stiffness.values()]
        return {"stiffness": float(torch.cat(every).mean()) if every else 0.0}
