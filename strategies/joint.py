"""Train on everything seen so far: the upper line of every comparison.

Source: the usual baseline ("joint", "cumulative", "multitask").
Differs: the model is not drawn anew at each experience; it goes on from where it was.
Checked: each pass takes every sample seen so far exactly once (tests/test_strategies.py).
"""

from __future__ import annotations

from typing import final

from torch import nn

from lifelong.labels import LabelMap
from lifelong.learning import Needs, Strategy
from lifelong.learning.strategy import State
from lifelong.types import Batch, Experience


@final
class Joint(Strategy):
    """Pass over all samples of all experiences so far, as if they had come at once.

    Memory and time per experience grow without bound: it shows what is possible, not what is affordable.
    """

    needs = Needs(boundaries=True, bounded=False, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"}))

    def __init__(self) -> None:
        self.seen: Batch | None = None  # samples of all finished experiences, with class indices
        self.now: Batch | None = None  # those, and the ones being learned

    def prepare(self, experience: Experience, labels: LabelMap) -> Experience:
        """Return an experience of everything: what was seen before, then what is new."""
        new = Batch.cat(list(experience.batches(1 << 20, None, labels)))
        self.now = Batch.cat([self.seen, new]) if self.seen else new
        names, task = labels.tolist(), experience.task
        return Experience(experience.index, experience.name, experience.classes, self.now, task=task, names=names)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Count this experience's samples among those seen."""
        self.seen, self.now = self.now, None

    def state(self) -> State:
        """Return all samples of finished experiences."""
        return {"seen": self.seen.state() if self.seen else {}}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.seen = Batch(**state["seen"]) if state["seen"] else None

    def summary(self) -> dict[str, float]:
        """Return how many samples are kept."""
        return {"memory": float(len(self.seen or []))}
