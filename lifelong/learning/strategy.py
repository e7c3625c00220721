"""What a continual-learning method may do, and when: hooks, all no-ops unless overridden.

Order of one training step, in `lifelong.learning.learner`:

    augment -> forward -> loss + penalty -> backward -> project -> optimizer step -> project_delta -> observe

The loss is cross-entropy unless `loss` replaces it. Around an experience: `adapt` (once, before the optimizer exists),
`begin`, `prepare`, steps, `end`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.labels import LabelMap
from lifelong.learning.allowance import Allowance
from lifelong.types import Batch, Experience, Output

State = dict[str, Any]  # nested; tensors and plain values only
KINDS = frozenset({"class-il", "domain-il", "task-il", "data-il", "online"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a strategy cannot do without; a scenario that does not provide it is refused at construction.

    Args:
        boundaries: The stream says where an experience begins and ends.
        task_id: Samples carry the id of their task, when training and when predicting.
        known_classes: All classes are known before the stream starts.
        epochs: An experience may be passed over more than once.
        scenarios: Kinds of scenario that the method is meant for (members of `KINDS`).
        bounded: Memory stays bounded on an endless stream (False for upper lines that keep everything).
        distributed: Several processes may train it: its hooks depend on their arguments and its own state, no more.
    """

    boundaries: bool = False
    task_id: bool = False
    known_classes: bool = False
    epochs: bool = False
    scenarios: frozenset[str] = KINDS
    bounded: bool = True
    distributed: bool = False

    _HINTS: ClassVar[dict[str, str]] = {
        "boundaries": "use a scenario with experiences instead of an online stream",
        "task_id": "use a task-incremental scenario",
        "known_classes": "name all classes of the stream up front",
        "epochs": "use a scenario whose experiences can be passed over again",
    }

    def refuse_unless(self, kind: str, provides: Iterable[str], who: str) -> None:
        """Raise `ConfigError` unless a scenario of `kind` that `provides` these facts is enough for `who`."""
        have = set(provides)
        for fact, hint in self._HINTS.items():
            if getattr(self, fact) and fact not in have:
                raise ConfigError(f"{who} needs {fact}, which this {kind} stream does not provide; {hint}")
        if kind not in self.scenarios:
            meant = ", ".join(sorted(self.scenarios))
            raise ConfigError(f"{who} is meant for {meant}, got a {kind} stream; choose another strategy")


class Strategy:
    """A method of continual learning. Subclass once, mark the subclass final, override what it changes."""

    needs: Needs = Needs()  # of the class, or of one instance where its arguments decide
    keeps_delta: ClassVar[bool] = False  # whether `project_delta` wants copies of the parameters before each step
    by_gradient: ClassVar[bool] = False  # whether `project` alone will do where a step is a multiple of the gradient
    step_rate: float | None = None  # that multiple; set by a learner before `project`, None if it may be anything else
    allowance: Allowance | None = None  # old samples that this step may rehearse; set by a learner, None is any number
    reshapes: ClassVar[bool] = False  # whether it replaces the backbone on the way, so that a restore has to follow
    strength: ClassVar[str | None] = None  # the argument that scales its effect: at 0 it must equal naive training
    exempt: ClassVar[Mapping[str, str]] = {}  # laws of `lifelong.checks` that cannot hold for it, and why

    def adapt(self, model: nn.Module) -> None:
        """Wrap or replace modules and choose what trains; called once, before the optimizer exists."""

    def prepare(self, experience: Experience, labels: LabelMap) -> Experience:
        """Return what to pass over in this experience: it, or it with other samples; called anew after a restore."""
        return experience

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Prepare for `experience`; its classes already have indices and the head has room for them."""

    def augment(self, batch: Batch) -> Batch:
        """Return what the model is to be trained on in this step: `batch`, first, and what follows it."""
        return batch

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return a scalar that replaces the cross-entropy of the augmented batch, or None to leave it.

        In a task-incremental setting the logits of classes of other tasks are -inf here.
        """

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return a scalar to add to the loss on the augmented batch, or None."""

    def noted(self) -> Sequence[Tensor]:
        """Return what the backward pass left beside the gradients, to be summed in place over several processes."""
        return ()

    def project(self, model: nn.Module) -> None:
        """Edit the gradients in place, before the optimizer's step."""

    def project_delta(self, model: nn.Module, before: Mapping[str, Tensor]) -> None:
        """Edit the parameters in place after the optimizer's step; `before` holds copies of them by name.

        Called only if `keeps_delta` is set and `step_rate` is None.
        """

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Learn from the step that was just taken; `batch` holds the new samples only, `out` their outputs."""

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Consolidate what `experience` taught."""

    def state(self) -> State:
        """Return everything that a resume needs: tensors and plain values."""
        return {}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""

    def summary(self) -> dict[str, float]:
        """Return numbers worth watching, such as how many samples a buffer holds."""
        return {}


@final
class Chain(Strategy):
    """Several strategies as one, applied in the order given; penalties add up, states nest by position and name.

    Args:
        strategies: At least one.
    """

    def __init__(self, *strategies: Strategy) -> None:
        if not strategies or not all(isinstance(s, Strategy) for s in strategies):
            raise ConfigError(f"a Chain takes strategies, got {[type(s).__name__ for s in strategies]}")
        self.strategies = strategies

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        """All that any of them needs, for the scenarios that all of them are meant for."""
        every = [s.needs for s in self.strategies]
        return Needs(
            boundaries=any(n.boundaries for n in every), task_id=any(n.task_id for n in every),
            known_classes=any(n.known_classes for n in every), epochs=any(n.epochs for n in every),
            scenarios=frozenset.intersection(*(n.scenarios for n in every)),
            bounded=all(n.bounded for n in every),
            distributed=all(n.distributed for n in every),
        )  # fmt: skip

    @property
    def keeps_delta(self) -> bool:  # type: ignore[override]
        """Whether any of them looks at the parameters' change."""
        return any(s.keeps_delta for s in self.strategies)

    @property
    def reshapes(self) -> bool:  # type: ignore[override]
        """Whether any of them replaces the backbone."""
        return any(s.reshapes for s in self.strategies)

    def adapt(self, model: nn.Module) -> None:
        """Let each adapt the model, in order."""
        for s in self.strategies:
            s.adapt(model)

    def prepare(self, experience: Experience, labels: LabelMap) -> Experience:
        """Hand the experience from one to the next."""
        for s in self.strategies:
            experience = s.prepare(experience, labels)
        return experience

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Let each begin, in order."""
        for s in self.strategies:
            s.begin(model, experience)

    def augment(self, batch: Batch) -> Batch:
        """Hand the batch from one to the next."""
        for s in self.strategies:
            batch = s.augment(batch)
        return batch

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return the one loss that replaces cross-entropy, None if all leave it.

        Raises:
            ConfigError: Two of them replace it.
        """
        given = [(type(s).__name__, loss) for s in self.strategies if (loss := s.loss(model, batch, out)) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(name for name, _ in given)} both replace the loss; chain one of them")
        return given[0][1] if given else None

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return the sum of what they give, None if none gives any."""
        total: Tensor | None = None
        for s in self.strategies:
            extra = s.penalty(model, batch, out)
            if extra is not None:
                total = extra if total is None else total + extra
        return total

    def project(self, model: nn.Module) -> None:
        """Let each edit the gradients, in order."""
        for s in self.strategies:
            s.project(model)

    def project_delta(self, model: nn.Module, before: Mapping[str, Tensor]) -> None:
        """Let each that asked for it edit the step, in order."""
        for s in self.strategies:
            if s.keeps_delta:
                s.project_delta(model, before)

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Let each observe, in order."""
        for s in self.strategies:
            s.observe(model, batch, out)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Let each end, in order."""
        for s in self.strategies:
            s.end(model, experience)

    def state(self) -> State:
        """Return each one's state under `position-Name`."""
        return {f"{i}-{type(s).__name__}": s.state() for i, s in enumerate(self.strategies)}

    def restore(self, state: State) -> None:
        """Restore each from its own part.

        Raises:
            ConfigError: The state was made by another chain.
        """
        mine = [f"{i}-{type(s).__name__}" for i, s in enumerate(self.strategies)]
        if sorted(mine) != sorted(state):
            raise ConfigError(f"this state is of the chain {sorted(state)}, not of {mine}; use the same strategies")
        for key, s in zip(mine, self.strategies, strict=True):
            s.restore(state[key])

    def summary(self) -> dict[str, float]:
        """Return all numbers; a later strategy's wins over an earlier one's of the same name."""
        return {name: value for s in self.strategies for name, value in s.summary().items()}
