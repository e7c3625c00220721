"""Memories of a bounded number of samples; each owns its generator and keeps copies, never a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning.patched import Slow, whole
from lifelong.types import Batch

State = dict[str, Any]


@final
class Store:
    """Rows for up to `capacity` samples; tensors are allocated when the first sample shows their shape.

    Args:
        capacity: Rows.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ConfigError(f"a memory holds at least 1 sample, got {capacity}")
        self.capacity, self.size = capacity, 0
        self._rows: Batch | None = None
        self._copies = {name: Slow(capacity) for name in ("x", "y", "ids", "task")}

    def __len__(self) -> int:
        return self.size

    @property
    def all(self) -> Batch:
        """What is held now, in row order (a view)."""
        assert self._rows is not None, "empty store"
        return self._rows[: self.size]

    def write(self, slots: Tensor, batch: Batch) -> None:
        """Put sample i of `batch` into row `slots[i]`; later samples win; new rows are appended without gaps."""
        if not len(batch):
            return
        if self._rows is None:
            self._rows = Batch(*(t.new_zeros((self.capacity, *t.shape[1:])) for t in batch.state().values()))
        for mine, new in zip(self._rows.state().values(), batch.state().values(), strict=True):
            mine[slots] = new.to(mine)
        for copies in self._copies.values():
            copies.wrote(slots)
        self.size = max(self.size, int(slots.max()) + 1)

    def state(self) -> State:
        """Return what is held; large tensors in parts, those that did not change being the same ones as before."""
        return {name: self._copies[name].copy(t) for name, t in self.all.state().items()} if self.size else {}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self._rows, self.size = None, 0
        self._copies = {name: Slow(self.capacity) for name in self._copies}
        if state:
            batch = Batch(*(whole(state[name]) for name in ("x", "y", "ids", "task")))
            if len(batch) > self.capacity:
                raise ConfigError(f"the saved memory holds {len(batch)} samples, more than capacity={self.capacity}")
            self.write(torch.arange(len(batch)), batch)


@final
class Reservoir:
    """A uniform sample of everything that was ever added (Vitter's algorithm R).

    After n samples each has been kept with probability capacity / n, whatever the order.

    Args:
        capacity: Samples kept at most.
        seed: Of this memory's own generator.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self.store, self.seen = Store(capacity), 0
        self.random = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.store)

    def add(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Offer `batch` to the memory; return the rows it took, and which of its samples are there now."""
        count, capacity = len(batch), self.store.capacity
        free = max(0, min(capacity - self.seen, count))
        taken = {self.seen + i: i for i in range(free)}  # row -> sample
        if count > free:  # a late sample i takes a uniform slot of 0..i, and is dropped if that is no row
            draw = torch.rand(count - free, generator=self.random, dtype=torch.float64)
            slots = (draw * torch.arange(self.seen + free + 1, self.seen + count + 1)).long()
            kept = (slots < capacity).nonzero().flatten()
            taken |= zip(slots[kept].tolist(), (kept + free).tolist(), strict=True)  # the last writer of a slot wins
        self.seen += count
        slots, rows = (torch.tensor(list(one), dtype=torch.int64) for one in (taken, taken.values()))
        if taken:
            self.store.write(slots, batch if free == count else batch.take(rows.to(batch.y.device)))
        return slots, rows

    def draw(self, count: int) -> Batch:
        """Return `count` samples drawn uniformly, without repeats as long as there are enough."""
        return self.store.all.take(draw_rows(len(self.store), count, self.random))

    def undo(self) -> Callable[[], None]:
        """Return what takes back the draws to come."""
        return drawing(self.random)

    def shuffled(self) -> Batch:
        """Return all samples in a drawn order; any first of them are a uniform sample again."""
        return self.store.all.take(torch.randperm(len(self), generator=self.random))

    def state(self) -> State:
        """Return samples, counters and the generator's state."""
        return {"store": self.store.state(), "seen": self.seen, "random": self.random.get_state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.store.restore(state["store"])
        self.seen = state["seen"]
        self.random.set_state(state["random"])


@final
class ClassBalanced:
    """Equal room for each class seen so far; within a class, a uniform sample (greedy balancing).

    A class may use free room until others need it: then the largest class gives up a random sample.

    Source: Prabhu et al., "GDumb" (greedy balancing sampler). Differs: within a full class, reservoir odds.

    Args:
        capacity: Samples kept at most, of all classes together.
        seed: Of this memory's own generator.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self.store = Store(capacity)
        self.seen: dict[int, int] = {}
        self._rows: dict[int, list[int]] = {}
        self.random = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.store)

    def add(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Offer `batch` to the memory; return the rows it took, and which of its samples are there now."""
        slots: dict[int, int] = {}  # row -> sample of this batch; a later sample may take a row over
        for i, label in enumerate(batch.y.tolist()):
            row = self._row_for(label)
            if row is not None:
                slots[row] = i
        taken, rows = (torch.tensor(list(one), dtype=torch.int64) for one in (slots, slots.values()))
        if slots:
            self.store.write(taken, batch.take(rows.to(batch.y.device)))
        return taken, rows

    def draw(self, count: int) -> Batch:
        """Return `count` samples drawn uniformly, without repeats as long as there are enough."""
        return self.store.all.take(draw_rows(len(self.store), count, self.random))

    def undo(self) -> Callable[[], None]:
        """Return what takes back the draws to come."""
        return drawing(self.random)

    def shuffled(self) -> Batch:
        """Return all samples in a drawn order, the classes taking turns; any first of them are balanced again."""
        drawn = torch.randperm(len(self), generator=self.random)
        y, turn = self.store.all.y[drawn], torch.empty_like(drawn)
        for label in y.unique():
            turn[y == label] = torch.arange(int((y == label).sum()))
        return self.store.all.take(drawn[turn.argsort(stable=True)])

    def state(self) -> State:
        """Return samples, rows by class, counters and the generator's state."""
        return {
            "store": self.store.state(),
            "seen": {str(k): v for k, v in self.seen.items()},
            "rows": {str(k): list(v) for k, v in self._rows.items()},
            "random": self.random.get_state(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.store.restore(state["store"])
        self.seen = {int(k): v for k, v in state["seen"].items()}
        self._rows = {int(k): list(v) for k, v in state["rows"].items()}
        self.random.set_state(state["random"])

    def _row_for(self, label: int) -> int | None:
        mine = self._rows.setdefault(label, [])
        self.seen[label] = self.seen.get(label, 0) + 1
        used = sum(map(len, self._rows.values()))
        if used < self.store.capacity:
            mine.append(used)
            return used
        largest = max(self._rows, key=lambda k: (len(self._rows[k]), k))  # a tie must not hang on the dict's order
        if len(mine) + 1 < len(self._rows[largest]) or not mine:  # take a row from the largest class
            victim = self._rows[largest]
            row = victim.pop(self._below(len(victim)))
            mine.append(row)
            return row
        slot = self._below(self.seen[label])
        return mine[slot] if slot < len(mine) else None

    def _below(self, limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=self.random))


POLICIES: Mapping[str, type[Reservoir] | type[ClassBalanced]] = {"reservoir": Reservoir, "balanced": ClassBalanced}


def make_buffer(policy: str, capacity: int, seed: int = 0) -> Reservoir | ClassBalanced:
    """Return a memory for up to `capacity` samples that keeps what its `policy`, a key of `POLICIES`, says.

    Raises:
        UnknownName: No policy is called so.
    """
    if policy not in POLICIES:
        raise UnknownName.among("buffer policy", policy, POLICIES)
    return POLICIES[policy](capacity, seed)


def drawing(random: torch.Generator) -> Callable[[], None]:
    """Return what takes a generator back to where it is now."""
    state = random.get_state()

    def back() -> None:
        random.set_state(state)

    return back


def draw_rows(size: int, count: int, random: torch.Generator) -> Tensor:
    """Return `count` row numbers below `size`: all different while there are enough, else as even as possible."""
    if count * count < size:  # few of many: drawing again on a repeat is cheaper than a whole permutation
        while len((rows := torch.randint(size, (count,), generator=random)).unique()) < count:
            pass
        return rows
    parts = [torch.randperm(size, generator=random) for _ in range(-(-count // size))]
    return torch.cat(parts)[:count] if parts else torch.empty(0, dtype=torch.int64)
