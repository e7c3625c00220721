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
        per_task: Samples kept of each finished task, a uniform sample. Memory grows by this much per task.
        ratio: Old samples per new one; 0 never rehearses.
        alpha: Decay of the odds per unit of (log) age; 0 is uniform rehearsal.
        kernel: `power`, `exponential` (exp(-alpha d)), `uniform`, `last` (the youngest only) or `anti` (d ** alpha).
        seed: Of this strategy's own generator.
    """

    needs = Needs(boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"}))

    def __init__(
        self, per_task: int = 100, ratio: float = 1.0, alpha: float = 1.0, kernel: str = "power", seed: int = 0
    ) -> None:
        if per_task < 1 or ratio < 0 or alpha < 0:
            raise ConfigError(
                f"need per_task >= 1, ratio >= 0 and alpha >= 0, got per_task={per_task}, ratio={ratio}, alpha={alpha}"
            )
        if kernel not in KERNELS:
            raise UnknownName.among("kernel", kernel, KERNELS)
        self.per_task, self.ratio, self.alpha, self.kernel = per_task, ratio, alpha, kernel
        self.memory: list[Batch] = []  # oldest task first
        self.random = torch.Generator().manual_seed(seed)
        self.current, self.first = Reservoir(per_task, seed), FirstPass()

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a sample of the new task."""
        seed = int(torch.randint(1 << 31, (1,), generator=self.random))
        self.current = Reservoir(self.per_task, seed)
        self.first.begin(experience)

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by round(ratio * N) old samples."""
        count = round(self.ratio * len(batch))
        if not self.memory or not count:
            return batch
        ages = torch.arange(len(self.memory), 0, -1)
        chances = odds(ages, self.kernel, self.alpha)
        drawn = torch.multinomial(chances, count, replacement=True, generator=self.random)
        share = drawn.bincount(minlength=len(self.memory)).tolist()
        old = [self._pick(task, n) for task, n in zip(self.memory, share, strict=True) if n]
        return Batch.cat([batch, *(b.to(batch.x.device) for b in old)])

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the current task's sample, once each."""
        self.current.add(self.first.new(batch))

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Put the current task's sample beside the older ones."""
        if len(self.current):
            self.memory.append(Batch(**{k: v.clone() for k, v in self.current.store.all.state().items()}))
        self.first.end()

    def state(self) -> State:
        """Return all samples and the generator's state."""
        return {
            "memory": [b.state() for b in self.memory],
            "current": self.current.state(),
            "first": self.first.state(),
            "random": self.random.get_state(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.memory = [Batch(**b) for b in state["memory"]]
        self.current.restore(state["current"])
        self.first.restore(state["first"])
        self.random.set_state(state["random"])

    def summary(self) -> dict[str, float]:
        """Return how many samples are kept."""
        return {"memory": float(sum(len(b) for b in self.memory) + len(self.current))}

    def _pick(self, task: Batch, count: int) -> Batch:
        return task.take(torch.randint(len(task), (count,), generator=self.random))
