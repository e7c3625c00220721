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
from lifelong.learning import Needs, Reservoir
from lifelong.learning.allowance import allowed
from lifelong.learning.remembering import Remembering
from lifelong.types import Batch, Output


@final
class AsymmetricReplay(Remembering):
    """Follow each batch by remembered samples; new ones compete among the batch's own classes only.

    Needs no boundaries. In a chain put it first: what comes before it counts as new.

    Args:
        capacity: Samples kept, over all classes and tasks.
        ratio: Remembered samples per new one; 0 never rehearses and leaves the loss as it is.
        seed: Of the memory's own generator.
    """

    needs = Needs(distributed=True)
    strength = "ratio"

    def __init__(self, capacity: int = 1000, ratio: float = 1.0, seed: int = 0) -> None:
        if ratio < 0:
            raise ConfigError(f"ratio must be at least 0, got {ratio}")
        super().__init__(Reservoir(capacity, seed))
        self.ratio = ratio
        self.new = 0  # rows of this step's batch that are new; 0: nothing was rehearsed

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
