"""A memory of samples and of what the model said of them when they last came."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from lifelong.learning.buffers import Reservoir, draw_rows
from lifelong.learning.remembering import Remembering
from lifelong.learning.strategy import State
from lifelong.types import Batch, Experience, Output


@final
class DarkMemory:
    """A uniform sample of everything that was added, with logits; classes that came later have none (NaN).

    Args:
        capacity: Samples kept at most.
        seed: Of this memory's own generator.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self.samples = Reservoir(capacity, seed)
        self.logits = torch.empty(capacity, 0)
        self.fresh = torch.zeros(capacity, dtype=torch.bool)  # rows of the running experience

    def __len__(self) -> int:
        return len(self.samples)

    def begin(self) -> None:
        """Let what is held belong to finished experiences: its logits stay as they are."""
        self.fresh.zero_()

    def add(self, batch: Batch, logits: Tensor) -> None:
        """Offer samples with their logits `[N, C]`."""
        slots, rows = self.samples.add(batch)
        self.fresh[slots] = True
        self._write(slots, logits, rows)

    def again(self, batch: Batch, logits: Tensor) -> None:
        """Replace the logits of those samples of the running experience that are held and came once more."""
        if len(batch):
            same = self.samples.store.all.ids[:, None] == batch.ids.to("cpu")
            slots, rows = (same & self.fresh[: len(self), None]).nonzero(as_tuple=True)
            self._write(slots, logits, rows)

    def draw(self, count: int) -> tuple[Batch, Tensor]:
        """Return `count` samples drawn uniformly, and their logits `[count, C]` (NaN where a class was not known)."""
        rows = draw_rows(len(self), count, self.samples.random)
        return self.samples.store.all.take(rows), self.logits[rows]

    def undo(self) -> Callable[[], None]:
        """Return what takes back the draws to come."""
        return self.samples.undo()

    def state(self) -> State:
        """Return samples, logits and the generator's state."""
        count = len(self)
        return {
            "samples": self.samples.state(),
            "logits": self.logits[:count].clone(),
            "fresh": self.fresh[:count].clone(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.samples.restore(state["samples"])
        kept = state["logits"]
        self.logits = torch.full((self.samples.store.capacity, kept.shape[1]), torch.nan)
        self.logits[: len(kept)] = kept
        self.begin()
        self.fresh[: len(kept)] = state["fresh"]

    def _write(self, slots: Tensor, logits: Tensor, rows: Tensor) -> None:
        new = logits.shape[1] - self.logits.shape[1]
        if new > 0:
            self.logits = torch.cat([self.logits, torch.full((len(self.logits), new), torch.nan)], 1)
        self.logits[slots, : logits.shape[1]] = logits.detach()[rows.to(logits.device)].to(self.logits)


class RememberingLogits(Remembering):
    """Remembers with each sample what the model said of it before its last step in its own experience.

    Args:
        capacity: Samples kept, with their logits.
        seed: Of the memory's own generator.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        super().__init__(DarkMemory(capacity, seed))

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start counting the first pass, and let what is held belong to the past."""
        super().begin(model, experience)
        self.memory.begin()

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples once each, and remember what was said of them before the step, the last time."""
        new = len(self.first.new(batch))
        self.memory.add(batch[:new], out.logits[:new])
        self.memory.again(batch[new:], out.logits[new:])


def distance(logits: Tensor, then: Tensor) -> Tensor:
    """Return the mean squared difference between `logits` `[N, C]` and what was said `then`.

    A class that was not known then stands where the least likely known one stood: were it left out, nothing would
    keep new classes from taking old samples over. Logits that are -inf now (other tasks' classes) are left out.
    """
    target = logits.detach().new_full(logits.shape, torch.nan)
    target[:, : then.shape[1]] = then.to(logits)
    known = target.isfinite()
    lowest = target.masked_fill(~known, torch.inf).amin(1, keepdim=True)
    target, allowed = torch.where(known, target, lowest), logits.isfinite()
    gap = torch.where(allowed, logits - target, 0.0)  # no gradient flows where there is nothing to compare
    return gap.square().sum() / allowed.sum().clamp(min=1)
