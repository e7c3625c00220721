"""Power-law rehearsal: how often a task is met again decays as a power of the time since it was learned.

Source: Gandhi, Shah, Marupudi, Varma 2024, "Natural Mitigation of Catastrophic Interference: Continual
    Learning in Power-Law Learning Environments".
Differs: the paper's exact sampling is not public to us; the odds of a task of age d (in experiences since it was
    the one being learned) are our reading: d ** -alpha. Being rehearsed does not make a task younger: with that
    clock the scheme would turn into uniform rehearsal.
Checked: odds by chi-square against the kernel, alpha 0 is uniform, ratio 0 equals naive bit for bit
    (tests/test_strategies.py, laws).
"""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Needs, Reservoir, Strategy
from lifelong.learning.passes import FirstPass
from lifelong.learning.strategy import State
from lifelong.types import Batch, Experience, Output

KERNELS = ("power", "exponential", "uniform", "last", "anti")


def odds(ages: Tensor, kernel: str, alpha: float) -> Tensor:
    """Return the probability `[T]` float64 of each task of age `[T]` >= 1 to be met.

    >>> odds(torch.tensor([1, 2, 4]), "power", 1.0).tolist()
    [0.5714285714285714, 0.2857142857142857, 0.14285714285714285]
    """
    age = ages.double()
    weight = {
        "power": age**-alpha,
        "exponential": torch.exp(-alpha * (age - age.min())),
        "uniform": torch.ones_like(age),
        "last": (age == age.min()).double(),
        "anti": age**alpha,
    }[kernel]
    return weight / weight.sum()


@final
class PowerLawRehearsal(Strategy):
    """Follow each batch by old samples; the odds of a task of age d are d ** -alpha.

    Args:
        capacity: Samples kept of all finished tasks together, shared equally; with more tasks than that, the oldest
            are forgotten.
        ratio: Old samples per new one; 0 never rehearses.
        alpha: Decay of the odds per unit of (log) age; 0 is uniform rehearsal.
        kernel: `power`, `exponential` (exp(-alpha d)), `uniform`, `last` (the youngest only) or `anti` (d ** alpha).
        seed: Of this strategy's own generator.
    """

    needs = Needs(boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"}))
    strength = "ratio"

    def __init__(
        self, capacity: int = 1000, ratio: float = 1.0, alpha: float = 1.0, kernel: str = "power", seed: int = 0
    ) -> None:
        if capacity < 1 or ratio < 0 or alpha < 0:
            raise ConfigError(
                f"need capacity >= 1, ratio >= 0 and alpha >= 0, got capacity={capacity}, ratio={ratio}, alpha={alpha}"
            )
        if kernel not in KERNELS:
            raise UnknownName.among("kernel", kernel, KERNELS)
        self.capacity, self.ratio, self.alpha, self.kernel = capacity, ratio, alpha, kernel
        self.memory: Batch | None = None  # the tasks' samples one after the other, oldest task first
        self.sizes: list[int] = []  # samples of each task in it
        self.random = torch.Generator().manual_seed(seed)
        self.current, self.first = Reservoir(capacity, seed), FirstPass()

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a sample of the new task."""
        seed = int(torch.randint(1 << 31, (1,), generator=self.random))
        self.current = Reservoir(max(1, self.capacity // (len(self.sizes) + 1)), seed)
        self.first.begin(experience)

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by round(ratio * N) old samples."""
        count = round(self.ratio * len(batch))
        if self.memory is None or not count:
            return batch
        chances = odds(torch.arange(len(self.sizes), 0, -1), self.kernel, self.alpha)
        task = torch.multinomial(chances, count, replacement=True, generator=self.random)
        size = torch.tensor(self.sizes)
        start = size.cumsum(0) - size
        within = torch.rand(count, generator=self.random, dtype=torch.float64)
        rows = start[task] + (within * size[task]).long()
        return Batch.cat([batch, self.memory.take(rows).to(batch.x.device)])

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the current task's sample, once each."""
        self.current.add(self.first.new(batch))

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Put the current task's sample beside the older ones, and cut all to an equal share."""
        self.first.end()
        if not len(self.current):
            return
        order = torch.randperm(len(self.current), generator=self.random)  # then any first rows are a uniform sample
        tasks = [] if self.memory is None else list(self._tasks(self.memory))
        tasks = [*tasks, self.current.store.all.take(order)][-self.capacity :]
        share = self.capacity // len(tasks)
        kept = [task[:share] for task in tasks]
        self.memory, self.sizes = Batch.cat([kept[0][:0], *kept]), [len(task) for task in kept]

    def state(self) -> State:
        """Return all samples and the generator's state."""
        return {
            "memory": {} if self.memory is None else self.memory.state(),
            "sizes": list(self.sizes),
            "current": self.current.state(),
            "room": self.current.store.capacity,
            "first": self.first.state(),
            "random": self.random.get_state(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.memory = Batch(**state["memory"]) if state["memory"] else None
        self.sizes = list(state["sizes"])
        self.current = Reservoir(state["room"])
        self.current.restore(state["current"])
        self.first.restore(state["first"])
        self.random.set_state(state["random"])

    def summary(self) -> dict[str, float]:
        """Return how many samples are kept."""
        return {"memory": float(sum(self.sizes) + len(self.current))}

    def _tasks(self, memory: Batch) -> list[Batch]:
        ends = torch.tensor([0, *self.sizes]).cumsum(0).tolist()
        return [memory[a:b] for a, b in pairwise(ends)]
