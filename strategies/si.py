"""Synaptic intelligence: weights whose movement lowered the loss are held in place.

Source: Zenke, Poole, Ganguli 2017, "Continual Learning Through Synaptic Intelligence", equations 3 to 5.
Differs: nothing in the formulas. The path integral uses the gradient of the loss without this method's own pull (as
    the authors' code does), computed in closed form; pulls of other strategies in a chain stay in it. A negative
    contribution counts as 0. Columns of a head that came later are free.
Checked: path integral against a hand computation on a quadratic, anchors that do not alias live weights
    (tests/test_si.py); pull 0 equals naive bit for bit, pull > 0 does not (laws).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy
from lifelong.learning.optimizers import trained
from lifelong.learning.quadratic import Quadratic, padded
from lifelong.learning.strategy import State
from lifelong.types import Batch, Experience, Output


@final
class SynapticIntelligence(Strategy):
    """Add pull * sum of Omega (w - w*)^2 to the loss; Omega is measured on the way, without extra passes.

    Args:
        pull: c; 0 leaves it out.
        damping: xi, > 0: keeps Omega finite for weights that hardly moved.
    """

    needs = Needs(
        distributed=True, boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"})
    )
    uses = frozenset({"weights"})
    strength = "pull"
    keeps_delta = True
    exempt = {  # noqa: RUF012 - a constant
        "beats naive": "its installed pull is too weak to show on this law's few samples; see the claims for tuned ones"
    }

    def __init__(self, pull: float = 1.0, damping: float = 0.1) -> None:
        if pull < 0 or not damping > 0:
            raise ConfigError(f"need pull >= 0 and damping > 0, got pull={pull}, damping={damping}")
        self.pull, self.damping, self.held = pull, damping, Quadratic()
        self.start: dict[str, Tensor] = {}  # weights at the beginning of the experience
        self.path: dict[str, Tensor] = {}  # minus the integral of gradient times movement since then

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start the path here."""
        self.start = {name: p.detach().clone() for name, p in trained(model).items()}
        self.path = {name: torch.zeros_like(p) for name, p in self.start.items()}

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return pull times the quadratic, None before the first experience has ended."""
        return self.pull * self.held.energy(model) if self.pull and self.held else None

    def weight_penalty(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]] | None:
        """Return the same with its gradients."""
        return self.held.pulling(weights, self.pull) if self.pull else None

    def project_delta(self, model: nn.Module, before: Mapping[str, Tensor]) -> None:
        """Go on along the path: add -gradient * movement for each weight."""
        for name, p in trained(model).items():
            if p.grad is None:
                continue
            if name not in self.path or self.path[name].shape != p.shape:  # a head that grew in mid-experience
                self.path[name] = padded(self.path.get(name, before[name][:0]), torch.zeros_like(p))
                self.start[name] = padded(self.start.get(name, before[name][:0]), before[name])
            gradient = p.grad - self.pull * self.held.slope(name, before[name])
            self.path[name] = self.path[name] - gradient * (p.detach() - before[name])

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Turn the path into stiffness, and pull towards where it ended."""
        weights = {name: p.detach() for name, p in trained(model).items() if name in self.path}
        moved = {name: (w - self.start[name]).square() + self.damping for name, w in weights.items()}
        self.held.move(weights, {name: self.path[name].clamp(min=0) / moved[name] for name in weights})
        self.start, self.path = {}, {}

    def state(self) -> State:
        """Return the quadratic and the path so far (no call changes their tensors in place)."""
        return {"held": self.held.state(), "start": dict(self.start), "path": dict(self.path)}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.held.restore(state["held"])
        self.start, self.path = dict(state["start"]), dict(state["path"])

    def summary(self) -> dict[str, float]:
        """Return the mean stiffness over all weights."""
        every = [k.flatten() for k in self.held.stiffness.values()]
        return {"stiffness": float(torch.cat(every).mean()) if every else 0.0}
