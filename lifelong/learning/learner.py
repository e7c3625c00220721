"""The one training loop: whatever learns, learns here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, DataError
from lifelong.labels import Label, LabelMap
from lifelong.learning.analytic import Stack, loss_of
from lifelong.learning.budgets import Budget, Spending
from lifelong.learning.inputs import allow, check_classes, check_inputs, task_mask, unlabelled
from lifelong.learning.optimizers import Optim, advance, load_named_state, named_state, straight, trained
from lifelong.learning.ranks import ALONE, Ranks
from lifelong.learning.setting import Setting
from lifelong.learning.strategy import State, Strategy
from lifelong.models import Classifier, outputs
from lifelong.types import Batch, Experience, Output


@final
class Learner:
    """A model, a strategy and the loop that runs them.

    The same loop serves streams with boundaries (`fit`) and without (`partial_fit`), gradient methods and
    closed-form ones (then backward and step are left out). All its random choices come from one generator of
    its own, saved with everything else: a restored learner goes on bit for bit.

    Args:
        model: Trained in place, on `device`.
        strategy: What keeps it from forgetting; None trains naively.
        optim: Optimizer and learning rate.
        batch_size: New samples per step.
        seed: Of the order of samples.
        shuffle: Draw a new order for each pass; False keeps the order of the data.
        device: `cpu`, `cuda`, ...
        budget: What one step may cost; strategies rehearse less instead of going beyond it.
        setting: The scenario; a strategy that needs more than it provides is refused here.
        ranks: The processes that train this learner together; each calls the same methods with the same samples.

    Raises:
        ConfigError: The strategy and the scenario do not fit, or an argument is out of range.
    """

    def __init__(
        self,
        model: Classifier,
        strategy: Strategy | None = None,
        *,
        optim: Optim | None = None,
        batch_size: int = 32,
        seed: int = 0,
        shuffle: bool = True,
        device: torch.device | str = "cpu",
        budget: Budget | None = None,
        setting: Setting | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        self.strategy = strategy or Strategy()
        if setting is not None:
            self.strategy.needs.refuse_unless(setting.kind, setting.provides, type(self.strategy).__name__)
        self.device, self.batch_size, self.optim = torch.device(device), batch_size, optim or Optim()
        self.random, self.shuffle = torch.Generator().manual_seed(seed), shuffle
        self.model = model.to(self.device)
        self.strategy.adapt(self.model)
        self.model.to(self.device)
        self.labels, self.ranks = LabelMap(), ranks.taking(self.strategy, self.model, budget or Budget())
        self.tasks: dict[int, list[int]] = {}  # class indices by task, kept in a task-incremental setting only
        self.by_task = setting is not None and setting.kind == "task-il"
        self._spending = Spending(budget or Budget())
        self.counters = {"steps": 0, "samples": 0, "rehearsed": 0, **self._spending.counters}
        self.position: dict[str, int] = {"experience": 0, "epoch": 0, "batch": 0, "open": 0}
        self._epoch_start = self.random.get_state()
        self._optimizer: torch.optim.Optimizer | None = None
        self._parameters: dict[str, nn.Parameter] = {}
        self._stack: Stack | None = None
        self._rebuild()

    def fit(self, experience: Experience, epochs: int = 1, *, on_step: Callable[[], None] | None = None) -> None:
        """Learn one experience; after a `restore` in the middle of it, learn the rest of it.

        Args:
            experience: Its index must be the learner's next (`position["experience"]`).
            epochs: Passes over its training data (closed-form strategies need one and make one).
            on_step: Called after each step and after the end, with everything consistent: commit here.

        Raises:
            DataError: Samples are not finite or of a wrong shape; nothing was learned from that batch.
        """
        if epochs < 1:
            raise ConfigError(f"epochs must be at least 1, got {epochs}")
        at = self.position
        if experience.index != at["experience"]:
            raise ConfigError(
                f"experience {at['experience']} is next, got {experience.index}; "
                f"{'finish the one that is half learned' if at['open'] else 'experiences come in stream order'}"
            )
        if not at["open"]:
            self.begin(experience)
        passed = self.strategy.prepare(experience, self.labels)
        while at["epoch"] < (epochs if self._parameters else 1):
            self._epoch(passed, on_step)
        self.end(experience)
        if on_step:
            on_step()

    def begin(self, experience: Experience) -> None:
        """Open an experience whose samples come by `step`, as `fit` does for one whose samples are all there."""
        experience.register(self.labels)
        if self.by_task:
            known, new = self.tasks.get(experience.task, []), [self.labels.index(c) for c in experience.classes]
            own = self.tasks[experience.task] = [*known, *(c for c in new if c not in known)]
            self.model.allowed = allow(self.model.allowed, experience.task, own)
        self._grow()
        self.strategy.begin(self.model, experience)
        self.ranks.alike(self.model)
        self._rebuild()  # what trains may have changed, by the strategy or by hand
        self.position["open"] = 1
        if self.optim.rate.policy == "cosine":
            self.position["warmed"] = self.counters["samples"]

    def end(self, experience: Experience) -> None:
        """Close the open experience: let the strategy consolidate."""
        self.strategy.end(self.model, experience)
        self.ranks.alike(self.model)
        if type(self.strategy).end is not Strategy.end:
            self._rebuild()
        self.position.update(experience=experience.index + 1, epoch=0, batch=0, open=0)

    def partial_fit(self, x: object, y: object, ids: object = None) -> Learner:
        """Learn from samples as they come: no experience, no boundary, new labels welcome.

        Args:
            x: Inputs `[N, ...]`, tensor, array or list.
            y: N labels, strings or integers.
            ids: Stable sample ids `[N]`; counted on from the samples seen so far unless given.
        """
        batch, labels = unlabelled(x, y, ids, self.counters["samples"])
        self._check(batch.x)  # before labels are new
        self.labels.register(labels)
        batch = replace(batch, y=self.labels.encode(labels))
        self.model.train()
        for start in range(0, len(batch), self.batch_size):
            self._step(batch[start : start + self.batch_size])
        return self

    def step(self, batch: Batch) -> float:
        """Take one training step on new samples with class indices; return the loss.

        Raises:
            DataError: The inputs are not finite or of a wrong shape, or a class is unknown; nothing has changed.
        """
        check_classes(batch.y, len(self.labels))
        return self._step(batch)

    def outputs(self, x: Tensor, task: int = -1) -> Output:
        """Return features `[N, D]` and logits `[N, C]` (C known classes) on the CPU; nothing changes."""
        self._check(x)
        out = outputs(self.model, x, device=self.device, task=task)
        logits = out.logits[:, : len(self.labels)]
        if task in self.tasks:
            own = torch.zeros(len(self.labels), dtype=torch.bool)
            own[self.tasks[task]] = True
            logits = logits.masked_fill(~own, -torch.inf)
        return Output(out.features, logits)

    def predict(self, x: Tensor, task: int = -1) -> list[Label]:
        """Return the N most likely labels of inputs `[N, ...]`; with a known `task`, among its classes."""
        if not len(self.labels):
            raise DataError("nothing has been learned yet; fit an experience first")
        return self.labels.decode(self.outputs(x, task).logits.argmax(1))

    def embed(self, x: Tensor) -> Tensor:
        """Return embeddings `[N, D]` of inputs `[N, ...]`."""
        return self.outputs(x).features

    def score(self, experience: Experience) -> float:
        """Return the share (0..1) of held-out samples of `experience` that are right; `DataError` if it has none."""
        right = total = 0
        for batch in experience.batches(1024, None, self.labels, test=True):
            task = int(batch.task[0]) if self.model.by_task else -1
            right += int((self.outputs(batch.x, task).logits.argmax(1) == batch.y).sum()) if len(self.labels) else 0
            total += len(batch)
        if not total:
            raise DataError(f"{experience.name!r} has no test sample, so no accuracy; leave it out of what is scored")
        return right / total

    def state(self) -> State:
        """Return copies of everything that a bit-exact continuation needs."""
        return {
            "shape": self.model.spec() if self.strategy.reshapes else {},
            "model": {name: t.detach().clone() for name, t in self.model.state_dict().items()},
            "optimizer": named_state(self._optimizer, self._parameters) if self._optimizer else {},
            "strategy": self.strategy.state(),
            "labels": self.labels.tolist(), "tasks": {str(k): v for k, v in self.tasks.items()},
            "random": {
                "order": self.random.get_state(), "epoch_start": self._epoch_start,
                "model": self.model.generator.get_state(),
            },
            "counters": dict(self.counters), "position": dict(self.position),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Take back what `state()` gave, from a learner made with the same arguments.

        Raises:
            ConfigError: The state is of another model or strategy.
        """
        self.labels = LabelMap(state["labels"])
        self.tasks, self.model.allowed = {int(k): list(v) for k, v in state["tasks"].items()}, None
        if state.get("shape"):
            self.model.become(state["shape"])
        self._grow()
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ConfigError(f"the saved state is of another model: {str(error).splitlines()[-1].strip()}") from error
        self.strategy.restore(state["strategy"])
        self._rebuild()
        if self._optimizer:
            load_named_state(self._optimizer, self._parameters, state["optimizer"])
        self.random.set_state(state["random"]["order"])
        self._epoch_start = state["random"]["epoch_start"]
        self.model.generator.set_state(state["random"]["model"])
        self.counters, self.position = dict(state["counters"]), dict(state["position"])

    def _epoch(self, experience: Experience, on_step: Callable[[], None] | None) -> None:
        at = self.position
        if not at["batch"]:
            self._epoch_start = self.random.get_state()
        self.random.set_state(self._epoch_start)  # after a restore: the same order again, without what is done
        if not self.model.training:  # a walk over all modules
            self.model.train()
        skip, size, order = at["batch"], self.batch_size, self.random if self.shuffle else None
        for batch in experience.batches(size, order, self.labels, skip=skip, check=self._check):
            self._step(batch)
            at["batch"] += 1
            if on_step:
                on_step()
        if not at["batch"]:
            raise DataError(
                f"{experience.name!r} gave no samples in pass {at['epoch'] + 1}; a one-shot iterator can be passed once"
            )
        at["epoch"], at["batch"] = at["epoch"] + 1, 0

    def _step(self, batch: Batch) -> float:
        self._check(batch.x)
        if len(self.labels) > self._room:
            self._grow()
        batch = batch.to(self.device) if self.device.type != "cpu" else batch
        loss = self._descend(batch) if self._parameters else 0.0
        if not self._parameters:
            with torch.no_grad():
                self.strategy.observe(self.model, batch, self.ranks.forward(self.model, batch))
        self.counters["steps"] += 1
        self.counters["samples"] += len(batch)
        return loss

    def _descend(self, batch: Batch) -> float:
        strategy, model = self.strategy, self.model
        assert self._optimizer is not None
        if self.optim.rate.moves:
            self.optim.turn(self._optimizer, self.counters["samples"] - self.position.get("warmed", 0), self.batch_size)
        self._spending.before(strategy, model, batch)
        undo, mixed = strategy.undo(), strategy.augment(batch)
        out, loss, back = loss_of(self._stack, self.ranks, strategy, model, mixed)
        value = loss.item()
        if not math.isfinite(value):
            undo()
            raise DataError(f"the loss became {value} at step {self.counters['steps']}; lower the learning rate")
        for parameter in self._parameters.values():  # what zero_grad does, without its profiling hooks
            parameter.grad = None
        back()
        self.ranks.reduce(self._parameters.values(), strategy.noted)
        if strategy.by_gradient:
            strategy.step_rate = straight(self._optimizer)
        strategy.project(model)
        keeps = strategy.keeps_delta and strategy.step_rate is None
        before = {n: p.detach().clone() for n, p in self._parameters.items()} if keeps else {}
        advance(self._optimizer, self._parameters.values())
        if keeps:
            strategy.project_delta(model, before)
        self.counters["rehearsed"] += len(mixed) - len(batch)
        self._spending.after(len(mixed), self.counters)
        strategy.observe(model, batch, out if mixed is batch else out[: len(batch)])
        return value

    def _check(self, x: Tensor) -> None:
        check_inputs(x, self._dtype, self._shape)

    def _grow(self) -> None:
        self.model.grow(len(self.labels))
        if self.model.classes != self._room:
            self._rebuild()

    def _rebuild(self) -> None:
        """Point the optimizer at the parameters that exist now; momenta follow what grew, not what was replaced."""
        now, before = trained(self.model), self._parameters
        if now.keys() != before.keys() or any(p is not before[name] for name, p in now.items()):
            kept = {n: p for n, p in before.items() if n in now and (now[n] is p or now[n].shape != p.shape)}
            old = named_state(self._optimizer, kept) if self._optimizer else {}
            self._parameters = now
            self._stack = Stack.of(self.model) if self.ranks.count == 1 else None
            self._optimizer = self.optim.make(list(now.values())) if now else None
            if self._optimizer:
                load_named_state(self._optimizer, now, old)
        self._room = self.model.classes
        self._dtype = next((p.dtype for p in (now.values() or self.model.parameters())), torch.float32)
        self._shape = self.model.input_shape
        if self.by_task and ((allowed := self.model.allowed) is None or allowed.shape[1] != self._room):
            self.model.allowed = task_mask(self.tasks, self._room).to(self.device)
