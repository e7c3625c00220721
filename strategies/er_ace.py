"""Replay with asymmetric cross-entropy: new samples do not push old classes down, remembered ones meet all classes.

Source: Caccia et al. 2022, "New Insights on Reducing Abrupt Representation Change in Online Continual Learning",
    section 4 (ER-ACE).
Differs: the memory is drawn from before the new batch enters it; only the first pass over an experience is offered to
    it; with an empty memory a step is an ordinary one.
Checked: loss against a hand computation, and no gradient of new samples on absent classes (tests/test_er_ace.py);
    ratio 0 equals naive bit for bit (laws).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.learning import Reservoir, Strategy
from lifelong.learning.allowance import allowed
from lifelong.learning.passes import FirstPass
from lifelong.learning.strategy import State
from lifelong.types import Batch, Experience, Output


@final
class AsymmetricReplay(Strategy):
    """Follow each batch by remembered samples; new ones compete among the batch's own classes only.

    Needs no boundaries. In a chain put it first: what comes before it counts as new.

    Args:
        capacity: Samples kept, over all classes and tasks.
        ratio: Remembered samples per new one; 0 never rehearses and leaves the loss as it is.
        seed: Of the memory's own generator.
    """

    strength = "ratio"

    def __init__(self, capacity: int = 1000, ratio: float = 1.0, seed: int = 0) -> None:
        if ratio < 0:
            raise ConfigError(f"ratio must be at least 0, got {ratio}")
        self.ratio, self.first, self.memory = ratio, FirstPass(), Reservoir(capacity, seed)
        self.new = 0  # rows of this step's batch that are new; 0: nothing was rehearsed

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start counting the first pass."""
        self.first.begin(experience)

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by round(ratio * N) remembered samples."""
        self.new, count = 0, allowed(self.allowance, round(self.ratio * len(batch))) if len(self.memory) else 0
        if not count:
            return batch
        self.new = len(batch)
        return Batch.cat([batch, self.memory.draw(count).to(batch.x.device)])

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return cross-entropy of new samples among their classes plus that of remembered ones among all."""
        if not self.new:
            return None
        logits, y = out.logits[: self.new], batch.y[: self.new]
        absent = torch.ones(logits.shape[1], dtype=torch.bool, device=y.device)
        absent[y] = False
        new = F.cross_entropy(logits.masked_fill(absent, -torch.inf), y)
        return new + F.cross_entropy(out.logits[self.new :], batch.y[self.new :])

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
