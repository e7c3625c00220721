"""Elastic weight consolidation: weights that earlier experiences were sure about are held in place.

Source: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks" (eq. 3, one pull per task);
    Schwarz et al. 2018, "Progress & Compress", section 3.3 (online: one pull, decayed by gamma).
Differs: the Fisher diagonal is a mean over single samples, never the square of a batch's mean gradient; the separate
    pulls are kept as one equivalent quadratic, so memory does not grow with the number of tasks; columns of a head
    that came later are free.
Checked: Fisher against the closed form of logistic regression (tests/test_fisher.py); penalty, gradient and growth
    against a hand computation, separate pulls against their plain sum (tests/test_ewc.py); strength 0 equals naive
    bit for bit (laws).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Needs, Strategy
from lifelong.learning.fisher import MODES, fisher
from lifelong.learning.quadratic import Quadratic
from lifelong.learning.samples import Sampled
from lifelong.learning.strategy import State
from lifelong.types import Batch, Experience, Output


@final
class EWC(Strategy):
    """Add pull / 2 * sum of F (w - w*)^2 to the loss.

    Args:
        pull: lambda; 0 leaves it out. Too large for the learning rate diverges: lr * pull * F must stay below 2.
        online: One pull towards the latest weights; False keeps a pull towards where each experience ended.
        gamma: Share (0..1) of the earlier Fisher that an experience leaves (online only).
        samples: Samples of an experience that its Fisher is measured on, drawn uniformly.
        mode: `empirical` (at the observed classes) or `expected` (over the model's own belief, C times the cost).
        seed: Of the drawing of samples.
    """

    needs = Needs(
        distributed=True, boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"})
    )
    uses = frozenset({"weights"})
    strength = "pull"
    exempt = {  # noqa: RUF012 - a constant
        "beats naive": "its installed pull is too weak to show on this law's few samples; see the claims for tuned ones"
    }

    def __init__(
        self,
        pull: float = 100.0,
        online: bool = True,
        gamma: float = 1.0,
        samples: int = 256,
        mode: str = "empirical",
        seed: int = 0,
    ) -> None:
        if pull < 0 or not 0 <= gamma <= 1:
            raise ConfigError(f"need pull >= 0 and 0 <= gamma <= 1, got pull={pull}, gamma={gamma}")
        if mode not in MODES:
            raise UnknownName.among("Fisher mode", mode, MODES)
        self.pull, self.online, self.gamma, self.mode = pull, online, gamma, mode
        self.sampled, self.held = Sampled(samples, seed), Quadratic()

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a sample of the experience."""
        self.sampled.begin(experience)

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return pull / 2 times the quadratic, None before the first experience has ended."""
        return self.pull / 2 * self.held.energy(model) if self.pull and self.held else None

    def weight_penalty(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]] | None:
        """Return the same with its gradients."""
        return self.held.pulling(weights, self.pull / 2) if self.pull else None

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the experience's sample."""
        self.sampled.observe(batch)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Measure the Fisher where the experience ended, and pull towards there."""
        batch = self.sampled.end()
        if batch is None:
            return
        importance, weights = fisher(model, batch, self.mode), dict(model.named_parameters())
        if self.online:
            self.held.move(weights, importance, keep=self.gamma)
        else:
            self.held.add(weights, importance)

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
