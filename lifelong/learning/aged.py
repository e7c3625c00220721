"""Memories that know how long ago: of each finished task since it was learned, or of each sample since it was met."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor

from lifelong.learning.allocation import log_weights
from lifelong.learning.allowance import Allowance, allowed
from lifelong.learning.buffers import make_buffer
from lifelong.learning.passes import FirstPass
from lifelong.learning.schedule import Schedule
from lifelong.types import Batch, Experience

State = dict[str, Any]


@final
class Tasks:
    """Samples of each finished task in equal shares, in order, and which of them accompany the running one.

    Args:
        capacity: Samples of all finished tasks together; with more tasks than that the oldest are forgotten.
        buffer: Policy by which a task's samples are kept.
        seed: Of its own generators.
    """

    def __init__(self, capacity: int, buffer: str, seed: int) -> None:
        self.capacity, self.buffer = capacity, buffer
        self.memory: Batch | None = None  # the tasks' samples one after the other, oldest task first
        self.sizes = torch.zeros(0, dtype=torch.int64)  # samples of each task in it
        self.random, self.schedule = torch.Generator().manual_seed(seed), Schedule(seed)
        self.current, self.first = make_buffer(buffer, capacity, seed), FirstPass()

    def __len__(self) -> int:
        return int(self.sizes.sum()) + len(self.current)

    def ages(self) -> Tensor:
        """Return how many experiences ago each task was the one being learned `[T]` i64; rehearsal changes nothing."""
        return torch.arange(len(self.sizes), 0, -1)

    def begin(self, experience: Experience, counts: Tensor, new: int) -> None:
        """Start a sample of the new task, beside which `counts` `[T]` old ones come for each `new` new ones."""
        seed = int(torch.randint(1 << 31, (1,), generator=self.random))
        self.current = make_buffer(self.buffer, max(1, self.capacity // (len(self.sizes) + 1)), seed)
        self.first.begin(experience)
        self.schedule.begin(counts, self.sizes, new)

    def draw(self, new: int, allowance: Allowance | None = None) -> Batch | None:
        """Return the old samples that accompany the next `new` new ones, as many as are allowed."""
        rows = self.schedule.rows(new, allowance)
        return self.memory.take(rows) if self.memory is not None and len(rows) else None

    def undo(self) -> Callable[[], None]:
        """Return what takes back the draw to come."""
        return self.schedule.undo()

    def add(self, batch: Batch) -> None:
        """Offer new samples to the running task's sample."""
        self.current.add(batch)

    def end(self) -> None:
        """Put the running task's sample beside the older ones, and cut all to an equal share."""
        self.first.end()
        self.schedule.clear()
        if not len(self.current):
            return
        tasks = [] if self.memory is None else [self.memory[rows] for rows in self._slices()]
        tasks = [*tasks, self.current.shuffled()][-self.capacity :]  # so that any first rows are a sample of the task
        share = self.capacity // len(tasks)
        kept = [task[:share] for task in tasks]
        self.memory, self.sizes = Batch.cat([kept[0][:0], *kept]), torch.tensor([len(task) for task in kept])
        self.current = make_buffer(self.buffer, 1)

    def state(self) -> State:
        """Return all samples, the plan and the generators' states."""
        return {
            "memory": {} if self.memory is None else self.memory.state(),
            "sizes": self.sizes.clone(),
            "current": self.current.state(),
            "room": self.current.store.capacity,
            "first": self.first.state(),
            "schedule": self.schedule.state(),
            "random": self.random.get_state(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.memory = Batch(**state["memory"]) if state["memory"] else None
        self.sizes = state["sizes"].clone()
        self.current = make_buffer(self.buffer, state["room"])
        self.current.restore(state["current"])
        self.first.restore(state["first"])
        self.schedule.restore(state["schedule"])
        self.random.set_state(state["random"])

    def _slices(self) -> list[slice]:
        ends = [0, *self.sizes.cumsum(0).tolist()]
        return [slice(a, b) for a, b in pairwise(ends)]


@final
class Moments:
    """One memory of the whole stream, whose samples know the step at which they were last met: stored or rehearsed.

    Args:
        capacity: Samples.
        buffer: Policy by which they are kept.
        seed: Of its own generators.
    """

    def __init__(self, capacity: int, buffer: str, seed: int) -> None:
        self.memory, self.first = make_buffer(buffer, capacity, seed), FirstPass()
        self.last, self.step = torch.zeros(capacity, dtype=torch.int64), 0
        self.owed = 0.0  # the fraction of a sample that earlier steps did not draw
        self._drawn = torch.empty(0, dtype=torch.int64)  # rows of this step
        self.random = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.memory)

    def draw(self, count: float, kernel: str, alpha: float, allowance: Allowance | None = None) -> Batch | None:
        """Return `count` different samples on the average, one after the other by the odds of their ages.

        They are met when the step ends. What is not allowed is not drawn: its clock goes on, and it is not owed either.
        """
        self._drawn = self._drawn[:0]
        self.owed += count
        whole = int(self.owed)
        self.owed -= whole
        if not whole or not len(self.memory):
            return None
        weights = log_weights(self.step - self.last[: len(self.memory)], kernel, alpha)
        winners = allowed(allowance, min(whole, int(weights.isfinite().sum())))
        if not winners:
            return None
        race = torch.empty_like(weights).exponential_(generator=self.random)  # first past the post: those odds
        self._drawn = (weights - race.log()).topk(winners).indices
        return self.memory.store.all.take(self._drawn)

    def undo(self) -> Callable[[], None]:
        """Return what takes back the draw to come."""
        owed, random = self.owed, self.random.get_state()

        def back() -> None:
            self.owed, self._drawn = owed, self._drawn[:0]
            self.random.set_state(random)

        return back

    def add(self, batch: Batch) -> None:
        """Offer new samples; a step ends here: what was drawn for it is met."""
        rows, _ = self.memory.add(batch)
        self.last[rows] = self.last[self._drawn] = self.step
        self.step += 1

    def end(self) -> None:
        """Stop counting the first pass."""
        self.first.end()

    def state(self) -> State:
        """Return all samples, clocks and generators' states."""
        return {
            "memory": self.memory.state(),
            "first": self.first.state(),
            "last": self.last.clone(),
            "step": self.step,
            "owed": self.owed,
            "random": self.random.get_state(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.memory.restore(state["memory"])
        self.first.restore(state["first"])
        self.last, self.step, self.owed = state["last"].clone(), state["step"], state["owed"]
        self.random.set_state(state["random"])
