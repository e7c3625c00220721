"""Power-law rehearsal: how often the past is met again decays as a power of the time since it was met.

Source: Gandhi, Shah, Marupudi, Varma 2024, "Natural Mitigation of Catastrophic Interference: Continual
    Learning in Power-Law Learning Environments".
Differs: only the abstract was open to us; kernels, modes and clocks are our reading of it. With boundaries the clock
    of a task counts experiences since it was the one being learned, and rehearsal does not set it back: if it did,
    every task would be of age 1 in every experience, and the scheme would be uniform rehearsal. Without boundaries each
    stored sample has a clock that counts steps since it was stored or rehearsed; a step rehearses few of them.
    Memory keeps samples as the stream gave them: of a permuted or rotated task, the changed ones.
Checked: allocation sums, order, limits and ratios (tests/test_allocation.py); what is rehearsed against the kernel
    counted by hand, a clock that rehearsal sets back is caught, exact resume in every mode (tests/test_powerlaw.py);
    better than no rehearsal and than exponential decay on permuted digits (benchmarks/studies/powerlaw.py).
"""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Needs, Strategy
from lifelong.learning.aged import Moments, Tasks
from lifelong.learning.allocation import KERNELS, allocate, log_weights, odds
from lifelong.learning.strategy import State, Undo
from lifelong.types import Batch, Experience, Output

MODES = ("fixed", "proportional", "stochastic")


@final
class PowerLawRehearsal(Strategy):
    """Follow each batch by old samples; the odds of what was met d ago are d ** -alpha.

    `fixed` rehearses R = `budget` samples in every pass over an experience, R odds(d) of each finished task rounded by
    largest remainders: exactly R, spread evenly over the pass in a drawn order. While memory holds R samples none comes
    twice in a pass, and what a task has no sample for falls to the others; beyond, a task's samples repeat evenly.
    `proportional` rehearses round(ratio N d ** -alpha) samples of each task in every pass over N new ones: more, the
    more tasks there are. Both count N from the data's length; data of unknown length is planned `capacity` samples at a
    time. Outside of experiences they rehearse nothing.

    `stochastic` needs no boundaries: each step draws `ratio` samples per new one from one memory of the whole stream,
    none twice in a step, with d the steps since a sample was stored or last rehearsed.

    A learner's `Budget` that allows fewer in a step thins them alike: of what a pass owes some are drawn and the rest
    stay owed, so the tasks keep their shares and R is met over several passes; `stochastic` draws fewer by the same
    odds, and what it does not draw ages on.

    Args:
        capacity: Samples kept; of all finished tasks together, shared equally (with more tasks than that the oldest are
            forgotten), or in `stochastic` of the stream.
        ratio: Old samples per new one; 0 never rehearses, whatever the mode.
        alpha: Decay of the odds per unit of (log) age; 0 is uniform rehearsal.
        kernel: `power`, `exponential` (exp(-alpha d)), `uniform`, `last` (the youngest only) or `anti` (d ** alpha).
        mode: `fixed`, `proportional` or `stochastic`.
        budget: R of `fixed`; None is round(ratio N) for an experience of N samples.
        buffer: Policy of each task's memory (`stochastic`: of the only one): `reservoir` or `balanced`.
        seed: Of this strategy's own generators.
    """

    needs = Needs(
        distributed=True, boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"})
    )
    strength = "ratio"

    def __init__(
        self,
        capacity: int = 1000,
        ratio: float = 1.0,
        alpha: float = 1.0,
        kernel: str = "power",
        mode: str = "fixed",
        budget: int | None = None,
        buffer: str = "reservoir",
        seed: int = 0,
    ) -> None:
        if not (0 <= ratio < math.inf and 0 <= alpha < math.inf):
            raise ConfigError(f"need finite ratio >= 0 and alpha >= 0, got ratio={ratio} and alpha={alpha}")
        if kernel not in KERNELS:
            raise UnknownName.among("kernel", kernel, KERNELS)
        if mode not in MODES:
            raise UnknownName.among("mode", mode, MODES)
        if budget is not None and (mode != "fixed" or budget < 1):
            raise ConfigError(f"a budget >= 1 belongs to mode fixed, got budget={budget} in mode {mode}; use ratio")
        self.ratio, self.alpha, self.kernel, self.mode, self.budget = ratio, alpha, kernel, mode, budget
        self.met: Tasks | Moments = Tasks(capacity, buffer, seed)
        if mode == "stochastic":
            self.needs, self.met = Needs(distributed=True), Moments(capacity, buffer, seed)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Plan what accompanies the new experience.

        Raises:
            ConfigError: There is a budget per pass, and no telling how long a pass is.
        """
        if isinstance(self.met, Moments):
            self.met.first.begin(experience)
            return
        new = len(experience.train) if isinstance(experience.train, Sized) else 0
        if self.budget and not new:
            raise ConfigError(
                f"a budget needs data of known length, got {type(experience.train).__name__}; give ratio instead"
            )
        new = new or self.met.capacity
        self.met.begin(experience, self.counts(self.met.ages(), self.met.sizes, new), new)

    def counts(self, ages: Tensor, sizes: Tensor, new: int) -> Tensor:
        """Return how many samples of each task accompany `new` new ones `[T]` i64.

        Args:
            ages: Of each task `[T]`, in experiences since it was the one being learned.
            sizes: Samples of each in memory `[T]` i64.
            new: N, samples in a pass.
        """
        if not len(ages) or not self.ratio:
            return torch.zeros_like(sizes)
        if self.mode == "proportional":
            return (self.ratio * new * log_weights(ages, self.kernel, self.alpha).exp()).round().long()
        budget = self.budget or round(self.ratio * new)
        return allocate(budget, odds(ages, self.kernel, self.alpha), sizes if budget <= sizes.sum() else None)

    def undo(self) -> Undo:
        """Return what takes back the step's draw."""
        return self.met.undo()

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by old samples."""
        if isinstance(self.met, Moments):
            old = self.met.draw(self.ratio * len(batch), self.kernel, self.alpha, self.allowance)
        else:
            old = self.met.draw(len(batch), self.allowance)
        return batch if old is None else Batch.cat([batch, old.to(batch.x.device)])

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to memory, once each."""
        self.met.add(self.met.first.new(batch).to("cpu"))

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Put the new task beside the older ones."""
        self.met.end()

    def state(self) -> State:
        """Return all samples, plans, clocks and generators."""
        return self.met.state()

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.met.restore(state)

    def summary(self) -> dict[str, float]:
        """Return how many samples are kept."""
        return {"memory": float(len(self.met))}
