"""Dark experience replay: remember what the model said of a sample, and keep saying it.

Source: Buzzega et al. 2020, "Dark Experience for General Continual Learning: a Strong, Simple Baseline", equation 5.
Differs: the memory is drawn from before the new batch enters it; only the first pass over an experience is offered to
    it, a later pass renews the logits of what was kept (the authors offer every pass, so their logits are of any of
    them); a class that was not known when the sample came counts as the least likely known one (the authors give
    every class of the stream a column from the start, where training pushes it down as a negative: a head of that
    many `classes` gives the same here).
Checked: loss and its gradient against a hand computation, memory against what was said in the step
    (tests/test_der.py); alpha 0 equals naive bit for bit (laws).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.learning import Needs
from lifelong.learning.allowance import allowed
from lifelong.learning.dark import RememberingLogits, distance
from lifelong.types import Batch, Output


@final
class DarkReplay(RememberingLogits):
    """Add alpha * mean squared distance to remembered logits; remembered labels are not used. Needs no boundaries.

    Args:
        capacity: Samples kept, with their logits.
        alpha: Weight of the distance; 0 keeps a memory but never trains on it.
        ratio: Remembered samples per new one, > 0.
        seed: Of the memory's own generator.
    """

    needs = Needs(distributed=True)
    strength = "alpha"

    def __init__(self, capacity: int = 1000, alpha: float = 0.5, ratio: float = 1.0, seed: int = 0) -> None:
        if alpha < 0 or not ratio > 0:
            raise ConfigError(f"need alpha >= 0 and ratio > 0, got alpha={alpha}, ratio={ratio}")
        super().__init__(capacity, seed)
        self.alpha, self.ratio = alpha, ratio
        self.drawn: tuple[slice, Tensor] | None = None  # this step's remembered rows of the batch, and their logits

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by round(ratio * N) remembered samples."""
        self.drawn = None
        count = allowed(self.allowance, round(self.ratio * len(batch))) if self.alpha and len(self.memory) else 0
        if not count:
            return batch
        old, then = self.memory.draw(count)
        self.drawn = slice(len(batch), len(batch) + count), then
        return Batch.cat([batch, old.to(batch.x.device)])

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return the cross-entropy of all other samples, plus alpha * distance of the remembered ones."""
        if self.drawn is None:
            return None
        mine, then = self.drawn
        logits = torch.cat([out.logits[: mine.start], out.logits[mine.stop :]])
        y = torch.cat([batch.y[: mine.start], batch.y[mine.stop :]])
        return F.cross_entropy(logits, y) + self.alpha * distance(out.logits[mine], then)
