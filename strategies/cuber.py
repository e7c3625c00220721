"""CUBER: TRGP, and where old and new gradients agree the old task's weights may improve: backward transfer.

For each layer an old task is in one of three regimes:

    R1  the new gradient hardly lies in its span                        protected
    R2  it does, and the gradients disagree                             protected; the new task scales along its span
    R3  it does, and the gradients agree (correlation >= eps2)          free, but pulled back; scaled along as well

Source: Lin, Yang, Fan, Zhang 2022, "Beyond Not-Forgetting: Continual Learning with Backward Knowledge Transfer".
Differs: as TRGP (`strategies.trgp`). The paper sums the projections of R1 and R2, whose bases overlap; here what is
    removed is the span of their union. The check compares the gradient of the batch, or its moving average, before the
    pull is added. The pull's weight is not in the paper (2 is a leftover in its authors' code); it is as strong at
    any distance, so a large one makes free spans tremble: .1 is the default, and gave the same accuracy as 2. An
    older task that was itself scaled along the basis of a task in R3 may feel the update through its scales; the paper
    lets it, and so do we.
Checked: with eps2 above 1 it equals TRGP bit for bit, regimes are a partition and only ever fall from R3 to R2, the
    pull against its closed form, the update against the span of R1 and R2 (tests/test_cuber.py); laws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy
from lifelong.learning.protection import Energy, gradients
from lifelong.learning.strategy import State
from lifelong.learning.trust import Trust, related
from lifelong.models.records import Pull
from lifelong.types import Batch, Experience, Output

TINY = torch.finfo(torch.float32).tiny
ByTask = dict[str, dict[int, Tensor]]  # of each layer, of each task


def agree(one: Tensor, other: Tensor, least: float) -> bool:
    """Return whether the correlation of two gradients `[O, I]` is at least `least`, on the outputs that both have."""
    count = min(len(one), len(other))
    one, other = one[:count], other[:count]
    return bool((one * other).sum() >= least * one.norm() * other.norm())


@final
class CUBER(Strategy):
    """Protect old tasks' spans, except where the new gradient agrees with an old one.

    Args:
        eps1: Share of the gradient inside an old task's span that makes it related, >= 0.
        eps2: Correlation with an old task's gradient from which its span is set free; above 1 this is TRGP.
        pull: Weight of the distance (not squared) that a free span's weights have moved.
        check_every: Steps between two checks of the correlation.
        smooth: Of the moving average that is checked, 0..1; 0 looks at single batches.
        threshold: Share (0..1) of a layer's input energy that a task's basis holds; one for all, or one per layer
            in model order. 0 protects nothing.
        growth: Added to the threshold for each finished task.
        samples: Samples of a task that its basis and its gradient are taken from.
        looks: First steps of a task whose mean gradient decides the regimes.
        seed: Of this strategy's own generator.
    """

    needs = Needs(distributed=True, boundaries=True, bounded=False, scenarios=frozenset({"domain-il", "task-il"}))
    owns = frozenset({"weights"})
    keeps_delta = True
    by_gradient = True
    strength = "threshold"

    def __init__(
        self,
        eps1: float = 0.5,
        eps2: float = 0.0,
        *,
        pull: float = 0.1,
        check_every: int = 1,
        smooth: float = 0.0,
        threshold: float | Sequence[float] = 0.97,
        growth: float = 0.003,
        samples: int = 300,
        looks: int = 4,
        seed: int = 0,
    ) -> None:
        if eps1 < 0 or pull < 0 or check_every < 1 or not 0 <= smooth < 1:
            raise ConfigError(
                f"need eps1 >= 0, pull >= 0, check_every >= 1 and 0 <= smooth < 1, "
                f"got eps1={eps1}, pull={pull}, check_every={check_every}, smooth={smooth}"
            )
        self.eps1, self.eps2, self.pull, self.check_every, self.smooth = eps1, eps2, pull, check_every, smooth
        self.trust = Trust(Energy(threshold, growth), samples, looks, seed)
        self.old: ByTask = {}  # gradient [O, I] of a finished task's loss at its end
        self.anchors: ByTask = {}  # [W | b] B [O, K] when a task came into R3; its tasks are the ones in R3
        self._held: dict[str, tuple[Tensor, Tensor, list[int]]] = {}  # columns, anchors, sizes of a layer's free spans
        self.average: dict[str, Tensor] = {}
        self.steps = 0  # since the regimes were chosen

    def adapt(self, model: nn.Module) -> None:
        """Give the model a place for weights by task."""
        self.trust.adapt(model)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a new task; an id that it carries must be new."""
        self.trust.begin(model, experience)
        self.anchors, self.average, self.steps, self._held = {}, {}, 0, {}

    def regimes(self, layer: str) -> dict[int, str]:
        """Return R1, R2 or R3 for each finished task, in one layer."""
        chosen = self.trust.scaling.records[layer].related.get(self.trust.task, [])
        free = self.anchors.get(layer, {})
        return {t: "R3" if t in free else "R2" if t in chosen else "R1" for t in self.trust.finished}

    def noted(self) -> list[Tensor]:
        """Return the gradients' coordinates along the memory."""
        return self.trust.noted()

    def project(self, model: nn.Module) -> None:
        """Choose the regimes after the first steps; then check them, and pull free weights back."""
        for name, mean in self.trust.look(model).items():
            self._choose(model, name, mean)
        if any(self.anchors.values()):
            if self.steps and (self.smooth or not self.steps % self.check_every):
                self._check(self.trust.now(model))
            self.steps += 1
        self._pull(model)

    def project_delta(self, model: nn.Module, before: Mapping[str, Tensor]) -> None:
        """Take out of the step what tasks in R1 and R2 would feel."""
        self.trust.hold(model, before)

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the task's sample, once each."""
        self.trust.observe(batch)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Keep the task's gradient, basis and scales."""
        task, sample = self.trust.task, self.trust.sample
        found = gradients(model, sample.store.all) if len(sample) else {}
        self.trust.end(model)
        for name in self.trust.outputs:
            if name in found:
                self.old.setdefault(name, {})[task] = found[name]
        self.anchors, self.average, self._held = {}, {}, {}

    def state(self) -> State:
        """Return bases, scales, old gradients, regimes and the running task's sample."""
        return {
            "trust": self.trust.state(),
            "old": _texts(self.old),
            "anchors": _texts(self.anchors),
            "average": {name: g.clone() for name, g in self.average.items()},
            "steps": self.steps,
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.trust.restore(state["trust"])
        self.old, self.anchors = _numbers(state["old"]), _numbers(state["anchors"])
        self.average, self.steps, self._held = dict(state["average"]), state["steps"], {}
        for name in self.anchors:
            self._free(name)

    def summary(self) -> dict[str, float]:
        """Return how much of the input space is protected, and how many relations are there, free ones apart."""
        return {**self.trust.summary(), "free": float(sum(map(len, self.anchors.values())))}

    def _choose(self, model: nn.Module, name: str, mean: Tensor) -> None:
        trust = self.trust
        record = trust.scaling.records[name]
        chosen = related(record, mean, trust.finished, self.eps1, trust.scaling.most)
        trust.scaling.relate(trust.task, name, chosen)
        old = self.old.get(name, {})
        free = [t for t in sorted(chosen) if t in old and agree(old[t].to(mean), mean, self.eps2)]
        where = record.held[: record.outputs]
        self.anchors[name] = {t: where[:, record.own[t].to(where.device).long()] for t in free}
        self.average[name] = mean
        self._free(name)

    def _check(self, now: Mapping[str, Tensor]) -> None:
        """Put tasks whose gradients no longer agree into R2, for the rest of the task."""
        for name, free in self.anchors.items():
            if not free:
                continue
            mean = self.average[name] = now[name].lerp(self.average[name].to(now[name]), self.smooth)
            if self.steps % self.check_every:
                continue
            lost = [t for t in free if not agree(self.old[name][t].to(mean), mean, self.eps2)]
            for task in lost:
                del free[task]
            if lost:
                self._free(name)

    @torch.no_grad()
    def _pull(self, model: nn.Module) -> None:
        """Finish the gradients, that of pull * |(W - W_then) B| for each free span included; it is 0 at distance 0."""
        pulls: dict[str, Pull] = {}
        for name, (columns, anchors, sizes) in self._held.items():
            record = self.trust.scaling.records[name]
            rows = record.held if record.outputs == len(record.held) else record.held[: record.outputs]
            moved = rows.index_select(1, columns).sub_(anchors)
            for part in moved.split(sizes, 1):  # one free span each
                part *= self.pull / max(float(part.norm()), TINY)
            pulls[name] = columns, moved
        self.trust.correct(model, self.step_rate, pulls)

    def _free(self, name: str) -> None:
        """Free the columns of a layer's memory that no task in R1 or R2 holds; note what is to be pulled where."""
        record, free = self.trust.scaling.records[name], self.anchors[name]
        record.free, record.loose = None, False
        self._held.pop(name, None)
        if free:
            columns = torch.cat([record.own[t] for t in free]).to(record.held.device).long()
            self._held[name] = columns, torch.cat(list(free.values()), 1), [a.shape[1] for a in free.values()]
            held = [record.own[t].long() for t, regime in self.regimes(name).items() if regime != "R3"]
            record.free = torch.ones(record.memory.shape[1], dtype=torch.bool)
            record.free[torch.cat(held) if held else torch.zeros(0, dtype=torch.int64)] = False
            record.free, record.loose = record.free.to(record.memory.device), bool(record.free.all())


def _texts(by_task: ByTask) -> State:
    return {name: {str(t): g.clone() for t, g in kept.items()} for name, kept in by_task.items()}


def _numbers(state: State) -> ByTask:
    # In the order of the tasks, as they were: files sort their keys as texts, and sums round by their order.
    return {name: {int(t): kept[t] for t in sorted(kept, key=int)} for name, kept in state.items()}
