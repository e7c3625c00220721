"""Samples of experiences: uniform ones of the running one and of each finished one, or simply all of them."""

from __future__ import annotations

from typing import Any, final

import torch

from lifelong.labels import LabelMap
from lifelong.learning.buffers import Reservoir, draw_rows
from lifelong.learning.passes import FirstPass
from lifelong.types import Batch, Experience

State = dict[str, Any]


@final
class Sampled:
    """A uniform sample of the running experience, each of its samples counted once; empty between experiences.

    Args:
        count: Samples kept at most.
        seed: Of its own generator.
    """

    def __init__(self, count: int, seed: int = 0) -> None:
        self.first, self.kept = FirstPass(), Reservoir(count, seed)

    def __len__(self) -> int:
        return len(self.kept)

    def begin(self, experience: Experience) -> None:
        """Start with nothing."""
        self.first.begin(experience)
        self._empty()

    def observe(self, batch: Batch) -> None:
        """Offer new samples."""
        self.kept.add(self.first.new(batch))

    def end(self) -> Batch | None:
        """Return the sample in a drawn order (any first rows of it are a uniform sample too), and hold nothing."""
        self.first.end()
        count = len(self.kept)
        taken = self.kept.draw(count) if count else None
        self._empty()
        return taken

    def state(self) -> State:
        """Return what is held."""
        return {"first": self.first.state(), "kept": self.kept.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.first.restore(state["first"])
        self.kept.restore(state["kept"])

    def _empty(self) -> None:
        self.kept.store.restore({})
        self.kept.seen = 0


@final
class Episodes:
    """A bounded memory of finished experiences, shared equally; with more of them than room the oldest go.

    Args:
        capacity: Samples of all finished experiences together; as many at most of the running one.
        seed: Of its own generators.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self.capacity, self.running = capacity, Sampled(capacity, seed)
        self.finished: list[Batch] = []  # oldest first, each in a drawn order
        self.random = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.finished)

    def begin(self, experience: Experience) -> None:
        """Start a sample of the new experience."""
        self.running.begin(experience)

    def observe(self, batch: Batch) -> None:
        """Offer new samples."""
        self.running.observe(batch)

    def end(self) -> None:
        """Count the running experience among the finished ones, and cut all to an equal share."""
        taken = self.running.end()
        if taken is not None:
            every = [*self.finished, taken.to("cpu")][-self.capacity :]
            share = self.capacity // len(every)
            self.finished = [batch.take(torch.arange(share)) if len(batch) > share else batch for batch in every]

    def draw(self, count: int) -> Batch:
        """Return `count` samples of all finished experiences, without repeats as long as there are enough."""
        every = Batch.cat(self.finished)
        return every.take(draw_rows(len(every), count, self.random))

    def state(self) -> State:
        """Return all samples and both generators' states."""
        return {
            "running": self.running.state(),
            "finished": [batch.state() for batch in self.finished],
            "random": self.random.get_state(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.running.restore(state["running"])
        self.finished = [Batch(**batch) for batch in state["finished"]]
        self.random.set_state(state["random"])


@final
class Everything:
    """All samples of all experiences, with class indices: what an upper line trains on."""

    def __init__(self) -> None:
        self.seen: Batch | None = None  # of finished experiences
        self.now: Batch | None = None  # those, and the ones being learned

    def __len__(self) -> int:
        return len(self.seen or [])

    def prepare(self, experience: Experience, labels: LabelMap) -> Experience:
        """Return an experience of everything: what was seen before, then what is new."""
        new = Batch.cat(list(experience.batches(1 << 20, None, labels)))
        self.now = Batch.cat([self.seen, new]) if self.seen else new
        names, task = labels.tolist(), experience.task
        return Experience(experience.index, experience.name, experience.classes, self.now, task=task, names=names)

    def end(self) -> None:
        """Count the samples being learned among the seen."""
        self.seen, self.now = self.now, None

    def state(self) -> State:
        """Return the samples of finished experiences."""
        return self.seen.state() if self.seen else {}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.seen = Batch(**state) if state else None
