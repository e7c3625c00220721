"""Train on everything seen so far, from the start each time: the upper line of every comparison.

Source: the usual baseline ("joint", "offline", "multitask").
Differs: it is trained anew at each experience, so that there is a model after each; the last of them is the usual one.
Checked: each pass takes every sample seen so far exactly once (tests/test_strategies.py); the model after an experience
    is the one that is trained on all samples at once, bit for bit (tests/test_joint.py).
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from lifelong.labels import LabelMap
from lifelong.learning import Needs, Strategy
from lifelong.learning.optimizers import trained
from lifelong.learning.quadratic import padded
from lifelong.learning.samples import Everything
from lifelong.learning.strategy import KINDS, State
from lifelong.types import Experience


@final
class Joint(Strategy):
    """Go back to the first weights, then pass over all samples of all experiences so far, as if they had come at once.

    Memory and time per experience grow without bound: it shows what is possible, not what is affordable.
    """

    needs = Needs(distributed=True, boundaries=True, bounded=False, scenarios=KINDS - {"online"})
    exempt = {"flat cost": "it passes over everything seen so far"}  # noqa: RUF012 - a constant

    def __init__(self) -> None:
        self.samples = Everything()
        self.first: dict[str, Tensor] = {}  # what was drawn for each weight; columns of new classes are added

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Go back to what was drawn; weights are replaced, so that no momentum of the last training stays."""
        for name, p in trained(model).items():
            self.first[name] = padded(self.first[name], p) if name in self.first else p.detach().clone()
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, nn.Parameter(self.first[name].clone()))

    def prepare(self, experience: Experience, labels: LabelMap) -> Experience:
        """Return an experience of everything: what was seen before, then what is new."""
        return self.samples.prepare(experience, labels)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Count this experience's samples among those seen."""
        self.samples.end()

    def state(self) -> State:
        """Return all samples of finished experiences, and the first weights."""
        return {"samples": self.samples.state(), "first": dict(self.first)}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.samples.restore(state["samples"])
        self.first = dict(state["first"])

    def summary(self) -> dict[str, float]:
        """Return how many samples are kept."""
        return {"memory": float(len(self.samples))}
