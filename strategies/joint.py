"""Train on everything seen so far: the upper line of every comparison.

Source: the usual baseline ("joint", "cumulative", "multitask").
Differs: the model is not drawn anew at each experience; it goes on from where it was.
Checked: one epoch passes over every old sample exactly once (tests/test_strategies.py).
"""

from __future__ import annotations

from typing import final

import torch
from torch import nn

from lifelong.learning import Needs, Strategy
from lifelong.learning.passes import FirstPass
from lifelong.learning.strategy import State
from lifelong.types import Batch, Experience, Output


@final
class Joint(Strategy):
    """Follow each new batch by its share of all samples of earlier experiences, in a drawn order.

    Memory and time per experience grow without bound: it shows what is possible, not what is affordable.

    Args:
        seed: Of the order of old samples.
    """

    needs = Needs(boundaries=True, bounded=False, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"}))

    def __init__(self, seed: int = 0) -> None:
        self.old: list[Batch] = []  # one batch per finished experience
        self.new: list[Batch] = []
        self.first = FirstPass()
        self.random = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)  # rows of the old samples that this pass still owes
        self.done, self.given = 0, 0  # new and old samples of this pass so far

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start the first pass."""
        self.first.begin(experience)
        self.old = [Batch.cat(self.old)] if self.old else []
        self.done = self.given = 0

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by so many old samples that a pass covers all of them exactly once."""
        if not self.old:
            return batch
        (memory,) = self.old
        size = self.first.limit if self.first.limit > 0 else len(batch)
        self.done += len(batch)
        due = len(memory) * self.done // size  # whole numbers: no sample is lost to rounding
        while len(self.order) < due - self.given:
            self.order = torch.cat([self.order, torch.randperm(len(memory), generator=self.random)])
        rows, self.order = self.order.split([due - self.given, len(self.order) - due + self.given])
        self.given = due
        return Batch.cat([batch, memory.take(rows).to(batch.x.device)])

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Keep the new samples, once each."""
        fresh = self.first.new(batch)
        if len(fresh):
            self.new.append(fresh.to("cpu"))

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Count this experience's samples among the old."""
        self.old = [Batch.cat([*self.old, *self.new])]
        self.new, self.order = [], self.order[:0]
        self.first.end()

    def state(self) -> State:
        """Return all samples and the order of what is still due."""
        return {
            "old": [b.state() for b in self.old],
            "new": [Batch.cat(self.new).state()] if self.new else [],
            "first": self.first.state(),
            "random": self.random.get_state(),
            "order": self.order.clone(),
            "done": self.done,
            "given": self.given,
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.old = [Batch(**b) for b in state["old"]]
        self.new = [Batch(**b) for b in state["new"]]
        self.first.restore(state["first"])
        self.random.set_state(state["random"])
        self.order, self.done, self.given = state["order"], state["done"], state["given"]

    def summary(self) -> dict[str, float]:
        """Return how many samples are kept."""
        return {"memory": float(sum(len(b) for b in [*self.old, *self.new]))}
