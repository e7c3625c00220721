"""When which old sample is met again, so that a pass over new samples meets each task an exact number of times.

A budget of the learner makes it fewer, in the same shares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from lifelong.learning.allowance import Allowance, allowed
from lifelong.learning.buffers import draw_rows


@final
class Schedule:
    """Exact numbers of old samples of each task in every pass over N new ones, evenly spread and in a drawn order.

    When s new samples of a pass have come, so have floor(s R / N) of its R old ones, each time drawn from those that
    the pass still owes. Within a pass no sample of a task comes again before all of that task came equally often.

    Where an allowance gives fewer than have come due, those that come are again drawn from all that is owed, and the
    others stay owed: the shares of the tasks are kept, and their exact numbers take more than one pass of new samples.

    Args:
        seed: Of its own generator.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.left = self.order = torch.empty(0, dtype=torch.int64)
        self.clear()

    def begin(self, counts: Tensor, sizes: Tensor, new: int) -> None:
        """Start the first pass; passes follow each other until `clear`.

        Args:
            counts: Old samples of each task per pass `[T]` i64; of a task without samples, 0.
            sizes: Samples of each task in memory `[T]` i64, where task after task lies in order.
            new: New samples per pass, >= 1.
        """
        self.counts, self.sizes, self.new, self.seen = counts, sizes, new, 0
        self._next_pass()

    def clear(self) -> None:
        """Owe nothing."""
        nothing = torch.empty(0, dtype=torch.int64)
        self.begin(nothing, nothing, 1)

    def rows(self, new: int, allowance: Allowance | None = None) -> Tensor:
        """Return the rows of memory `[M]` i64 that accompany the next `new` new samples, as many as are allowed."""
        total = int(self.counts.sum())
        due = total * (self.seen + new) // self.new - total * self.seen // self.new
        self.seen, due = self.seen + new, allowed(allowance, due)
        parts = [torch.empty(0, dtype=torch.int64)]
        while due:
            part = min(due, int(self.left.sum()))
            parts.append(self._some(part))
            due -= part
            if not self.left.any():
                self._next_pass()
        return torch.cat(parts)

    def undo(self) -> Callable[[], None]:
        """Return what takes back the rows to come: they are owed again."""
        left, order, seen, random = self.left, self.order, self.seen, self.random.get_state()

        def back() -> None:
            self.left, self.order, self.seen = left, order, seen
            self.random.set_state(random)

        return back

    def state(self) -> dict[str, Any]:
        """Return what is planned, what is still owed, and the generator's state."""
        return {
            "counts": self.counts.clone(),
            "sizes": self.sizes.clone(),
            "left": self.left.clone(),
            "order": self.order.clone(),
            "new": self.new,
            "seen": self.seen,
            "random": self.random.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.counts, self.sizes = state["counts"].clone(), state["sizes"].clone()
        self.left, self.order = state["left"].clone(), state["order"].clone()
        self.new, self.seen = state["new"], state["seen"]
        self.random.set_state(state["random"])

    def _next_pass(self) -> None:
        """Owe everything again, each task's samples in a new order."""
        self.left = self.counts.clone()
        drawn = torch.randperm(int(self.sizes.sum()), generator=self.random)
        task = torch.repeat_interleave(torch.arange(len(self.sizes)), self.sizes)
        self.order = drawn[task[drawn].argsort(stable=True)]

    def _some(self, count: int) -> Tensor:
        """Return the rows of `count` of the samples still owed, any of them with the same odds."""
        ends = self.left.cumsum(0)
        places = draw_rows(int(ends[-1]), count, self.random)
        task = torch.searchsorted(ends, places, right=True).sort().values
        taken = task.bincount(minlength=len(self.left))
        nth = torch.arange(count) - (taken.cumsum(0) - taken)[task] + (self.counts - self.left)[task]
        self.left = self.left - taken  # a new one: an undo may want the old one back
        start = self.sizes.cumsum(0) - self.sizes
        rows: Tensor = self.order[start[task] + nth % self.sizes[task]]
        return rows
