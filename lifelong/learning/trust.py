"""Which older tasks a new one is related to, layer by layer, and what is kept of each: shared by TRGP and CUBER."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, DataError
from lifelong.learning.buffers import Reservoir
from lifelong.learning.passes import FirstPass
from lifelong.learning.projection import own
from lifelong.learning.protection import Energy, freeze, grams, others
from lifelong.learning.strategy import State
from lifelong.models import Classifier
from lifelong.models.layers import gradient, layers
from lifelong.models.products import follow
from lifelong.models.records import Pull, Record
from lifelong.models.scaling import Scaling
from lifelong.types import Batch, Experience


def related(record: Record, gradient_OI: Tensor, older: Collection[int], least: float, most: int) -> list[int]:
    """Return the tasks whose spans hold a share of the gradient, the largest first, at most `most`.

    Args:
        record: Bases of the layer.
        gradient_OI: Of the new task's loss; a zero gradient is related to nothing.
        older: Finished tasks to choose from.
        least: Share |g B| / |g| that is enough.
        most: How many to choose.
    """
    size, older = float(gradient_OI.norm()), list(older)
    if not older or not size:
        return []
    energy = (gradient_OI @ record.memory).square().sum(0)  # |g b|^2 of each column: one product for all tasks
    counts = torch.tensor([record.own[t].numel() for t in older])
    columns = torch.cat([record.own[t] for t in older]).long().to(energy.device)
    owner = torch.arange(len(older)).repeat_interleave(counts).to(energy.device)
    shares = energy.new_zeros(len(older)).index_add_(0, owner, energy[columns]).sqrt()
    share = dict(zip(older, shares.tolist(), strict=True))
    enough = [t for t in older if share[t] >= least * size]
    return sorted(enough, key=lambda t: (-share[t], t))[:most]


@final
class Trust:
    """Samples, bases and scaled weights of each task, and the mean gradient of a new task's first steps.

    Args:
        energy: Share of the input energy that a task's own basis holds.
        samples: Samples of a task that its basis is taken from.
        looks: First steps of a task whose mean gradient says what it is related to.
        seed: Of the samples.
    """

    def __init__(self, energy: Energy, samples: int, looks: int, seed: int) -> None:
        if samples < 1 or looks < 1:
            raise ConfigError(f"samples and looks must be at least 1, got samples={samples}, looks={looks}")
        self.energy, self.samples, self.looks, self.seed = energy, samples, looks, seed
        self.task = -1  # none is running
        self.finished: list[int] = []
        self.looked = 0
        self.seen: dict[str, Tensor] = {}  # sum of the gradients of the steps looked at, by layer
        self.sample, self.first = Reservoir(samples, seed), FirstPass()
        self.others: dict[str, nn.Parameter] | None = None  # that are frozen; looked for once per task

    @property
    def outputs(self) -> dict[str, int]:
        """Return how many outputs a layer had when the last task that it protects ended, by layer."""
        return {name: r.outputs for name, r in self.scaling.records.items() if r.outputs}

    def adapt(self, model: nn.Module) -> None:
        """Give the model a place for weights by task."""
        assert isinstance(model, Classifier)
        self.scaling = model.scaling = Scaling(model)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a new task; one without an id is numbered here, and its samples, which have none, use no scales.

        Raises:
            DataError: Its id was learned before.
        """
        if experience.task in self.finished:
            raise DataError(
                f"{experience.name!r} needs a task id that is new, got {experience.task} after {self.finished}; "
                "number the tasks"
            )
        self.task = experience.task if experience.task >= 0 else 1 + max(self.finished, default=-1)
        self.looked, self.seen, self.others = 0, {}, None
        self.scaling.open(model, self.task)
        self.sample = Reservoir(self.samples, self.seed + len(self.finished))
        self.first.begin(experience)

    def look(self, model: nn.Module) -> dict[str, Tensor]:
        """Note the gradients of a step; return their means `[O, I]` by layer if this was the last look, else none."""
        if not self.outputs or self.looked >= self.looks:
            return {}
        for name, g in gradients_now(model, self.outputs).items():
            self.seen[name] = self.seen[name].to(g) + g if name in self.seen else g
        self.looked += 1
        if self.looked < self.looks:
            return {}
        found, self.seen = {name: g / self.looks for name, g in self.seen.items()}, {}
        return found

    def noted(self) -> list[Tensor]:
        """Return what the last backward pass said of the layers beside their gradients."""
        felts = [record.felt for record in self.scaling.records.values()]
        return [t for felt in felts for t in (felt.gradient, felt.through) if t is not None]

    def now(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the gradients `[O, I]` of a step by layer, with what comes through scales of free columns."""
        found = gradients_now(model, self.outputs)
        for name, g in found.items():
            record = self.scaling.records[name]
            if record.felt.through is not None:
                g += record.felt.through[: len(g)] @ record.memory.T
        return found

    def correct(self, model: nn.Module, rate: float | None, pulls: Mapping[str, Pull] | None = None) -> None:
        """Finish the gradients of a step, before it is taken.

        Args:
            model: After a backward pass.
            rate: What the step multiplies them with: then no old input will feel it. None leaves that to `hold`.
            pulls: Gradients to add along a layer's memory, by layer.
        """
        if not self.finished:
            return
        for name, layer in self.scaling.layers(model).items():
            record = self.scaling.records[name]
            if record.outputs:
                record.correct(layer, rate, (pulls or {}).get(name))
        if rate is not None:
            self.others = others(model) if self.others is None else self.others
            for p in self.others.values():
                p.grad = None

    def hold(self, model: nn.Module, before: Mapping[str, Tensor]) -> None:
        """Take out of a step what old inputs would feel; `before` holds the parameters before it by name."""
        if self.finished:
            for name, layer in self.scaling.layers(model).items():
                record = self.scaling.records[name]
                if record.outputs:
                    record.keep(layer)
            self.others = others(model) if self.others is None else self.others
            freeze(self.others, before)

    def observe(self, batch: Batch) -> None:
        """Offer the new samples to the task's sample, once each."""
        new = self.first.new(batch)
        if len(new):
            self.sample.add(new)

    def end(self, model: nn.Module) -> None:
        """Give the finished task its own basis in each layer, and its scales."""
        self.hold(model, {})  # what rounding errors have added up to
        seen = grams(model, self.sample.store.all) if len(self.sample) else {}
        self.scaling.close(self.task)
        for place, (name, layer) in enumerate(layers(model).items()):
            record, share = self.scaling.records[name], self.energy.at(place, len(self.finished))
            record.own[self.task] = torch.zeros(0, dtype=torch.int32)
            if name in seen and share:
                record.memory, ids = own(record.memory.to(layer.weight), seen[name], share)
                record.own[self.task] = ids.cpu()
                record.held = follow(layer, record.memory, record.held.to(layer.weight))
                record.outputs, record.free, record.loose = len(layer.weight), None, False
        self.finished.append(self.task)
        self.first.end()
        self.task, self.sample = -1, Reservoir(self.samples)

    def state(self) -> State:
        """Return bases, scales, the running task's sample and what was looked at."""
        return {
            "task": self.task,
            "finished": list(self.finished),
            "looked": self.looked,
            "seen": {name: g.clone() for name, g in self.seen.items()},
            "sample": self.sample.state(),
            "first": self.first.state(),
            "scaling": self.scaling.state(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.task, self.finished = state["task"], list(state["finished"])
        self.looked, self.seen = state["looked"], dict(state["seen"])
        self.sample = Reservoir(self.samples)
        self.sample.restore(state["sample"])
        self.first.restore(state["first"])
        self.scaling.restore(state["scaling"])

    def summary(self) -> dict[str, float]:
        """Return how much of the layers' input space is protected, and how many relations the last task has."""
        records = self.scaling.records.values()
        held, wide = (sum(r.memory.shape[axis] for r in records) for axis in (1, 0))
        task = self.task if self.task >= 0 else self.finished[-1] if self.finished else -1
        return {
            "protected": held / wide if wide else 0.0,
            "related": float(sum(len(r.related.get(task, [])) for r in records)),
            "memory": float(len(self.sample)),
        }


def gradients_now(model: nn.Module, outputs: dict[str, int]) -> dict[str, Tensor]:
    """Return the gradients `[O, I]` that are there now, of each layer's first `outputs` rows."""
    named = layers(model)
    return {name: gradient(named[name])[:count].detach().clone() for name, count in outputs.items() if name in named}
