"""What a continual-learning method may do, and when: hooks, all no-ops unless overridden.

Order of one training step, in `lifelong.learning.learner`:

    augment -> forward -> loss + penalty -> backward -> project -> optimizer step -> project_delta -> observe

The loss is cross-entropy unless `loss` replaces it. Around an experience: `adapt` (once, before the optimizer exists),
`begin`, `prepare`, steps, `end`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.labels import LabelMap
from lifelong.learning.allowance import Allowance
from lifelong.types import Batch, Experience, Output

State = dict[str, Any]  # nested; tensors and plain values only
PARTS = frozenset({"head", "weights", "space"})  # classifier; what the gradient moves, by name; where embeddings lie
KINDS = frozenset({"class-il", "domain-il", "task-il", "data-il", "online"})
Undo = Callable[[], None]


def nothing() -> None:
    """Take nothing back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a strategy cannot do without; a scenario that does not provide it is refused at construction.

    Args:
        boundaries: The stream says where an experience begins and ends.
        task_id: Samples carry the id of their task, when training and when predicting.
        known_classes: All classes are known before the stream starts.
        epochs: An experience may be passed over more than once.
        scenarios: Kinds of scenario that the method is meant for (members of `KINDS`).
        bounded: Memory stays bounded on an endless stream (False for what keeps everything, or something of each task).
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
        "boundaries": "use a scenario with experiences instead of an online stream; "
        "of a followed one, --follow window=count:N makes them",
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
    trains_late: ClassVar[bool] = False  # whether it freezes the model, and trains it when an experience ends
    reshapes: ClassVar[bool] = False  # whether it replaces the backbone on the way, so that a restore has to follow
    owns: ClassVar[frozenset[str]] = frozenset()  # of `PARTS`: what no other strategy of a chain may work on
    uses: ClassVar[frozenset[str]] = frozenset()  # of `PARTS`: what it relies on, as others may
    strength: ClassVar[str | None] = None  # the argument that scales its effect: at 0 it must equal naive training
    exempt: ClassVar[Mapping[str, str]] = {}  # laws of `lifelong.checks` that cannot hold for it, and why

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """The strategies that it consists of; itself, unless it is a chain."""
        return (self,)

    def adapt(self, model: nn.Module) -> None:
        """Wrap or replace modules and choose what trains; called once, before the optimizer exists."""

    def prepare(self, experience: Experience, labels: LabelMap) -> Experience:
        """Return what to pass over in this experience: it, or it with other samples; called anew after a restore."""
        return experience

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Prepare for `experience`; its classes already have indices and the head has room for them."""

    def undo(self) -> Undo:
        """Return what takes back all that `augment`, `loss` and `penalty` are about to change of `state()`.

        Asked before every step, called where the loss is not finite: a refused batch leaves no trace.
        """
        return nothing

    def augment(self, batch: Batch) -> Batch:
        """Return what the model is to be trained on in this step: `batch`, first, and what follows it."""
        return batch

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return a scalar that replaces the cross-entropy of the augmented batch, or None to leave it.

        In a task-incremental setting the logits of classes of other tasks are -inf here.
        """

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return a scalar to add to the loss on the augmented batch, or None."""

    def weight_penalty(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]] | None:
        """Return what `penalty` would, and its gradients by name, if it looks at nothing but the trained weights.

        It saves a backward pass and changes nothing. None leaves it to `penalty`.
        """

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
