"""Dark experience replay++: remembered logits for one draw of the memory, remembered labels for another.

Source: Buzzega et al. 2020, "Dark Experience for General Continual Learning: a Strong, Simple Baseline", equation 6.
Differs: as in `der`: the memory is drawn from before the new batch enters it; only the first pass over an experience
    is offered to it, a later pass renews the logits of what was kept; a class that was not known when the sample came
    counts as the least likely known one.
Checked: loss against a hand computation, alpha = beta = 0 equals naive, beta = 0 equals `der`'s loss
    (tests/test_der.py); ratio 0 equals naive bit for bit (laws).
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
class DarkReplayPlus(RememberingLogits):
    """Add alpha * distance to remembered logits and beta * cross-entropy of remembered labels. Needs no boundaries.

    Args:
        capacity: Samples kept, with their logits.
        alpha: Weight of the distance.
        beta: Weight of the cross-entropy.
        ratio: Remembered samples per new one, in each of the two draws; 0 never rehearses.
        seed: Of the memory's own generator.
    """

    needs = Needs(distributed=True)
    strength = "ratio"

    def __init__(
        self, capacity: int = 1000, alpha: float = 0.1, beta: float = 0.5, ratio: float = 1.0, seed: int = 0
    ) -> None:
        if min(alpha, beta, ratio) < 0:
            raise ConfigError(f"need alpha, beta and ratio >= 0, got alpha={alpha}, beta={beta}, ratio={ratio}")
        super().__init__(capacity, seed)
        self.alpha, self.beta, self.ratio = alpha, beta, ratio
        self.drawn: tuple[int, Tensor] | None = None  # where this step's remembered rows start; logits of the first

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by two draws of round(ratio * N) remembered samples."""
        self.drawn, uses = None, (self.alpha or self.beta) and len(self.memory)
        count = allowed(self.allowance, 2 * round(self.ratio * len(batch))) // 2 if uses else 0
        if not count:
            return batch
        one, then = self.memory.draw(count)
        two, _ = self.memory.draw(count)
        self.drawn = len(batch), then
        return Batch.cat([batch, one.to(batch.x.device), two.to(batch.x.device)])

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return the cross-entropy of all other samples, plus both terms on the remembered ones."""
        if self.drawn is None:
            return None
        start, then = self.drawn
        one, two = slice(start, start + len(then)), slice(start + len(then), start + 2 * len(then))
        logits = torch.cat([out.logits[:start], out.logits[two.stop :]])
        new = F.cross_entropy(logits, torch.cat([batch.y[:start], batch.y[two.stop :]]))
        labels = F.cross_entropy(out.logits[two], batch.y[two])
        return new + self.alpha * distance(out.logits[one], then) + self.beta * labels
