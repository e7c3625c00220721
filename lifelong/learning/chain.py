"""Several strategies as one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import final

from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.labels import LabelMap
from lifelong.learning.strategy import Needs, State, Strategy, Undo
from lifelong.types import Batch, Experience, Output


@final
class Chain(Strategy):
    """Several strategies as one, applied in the order given; penalties add up, states nest by position and name.

    Args:
        strategies: At least one.

    Raises:
        ConfigError: There is none, or two get in each other's way: both replace the loss, or one owns what the other
            works on.
    """

    def __init__(self, *strategies: Strategy) -> None:
        if not strategies or not all(isinstance(s, Strategy) for s in strategies):
            raise ConfigError(f"a Chain takes strategies, got {[type(s).__name__ for s in strategies]}")
        self.strategies = strategies
        for one, other in combinations(self.parts, 2):
            _refuse_clash(one, other)

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """The strategies, in order; of a chain among them, its own."""
        return tuple(part for s in self.strategies for part in s.parts)

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

    def undo(self) -> Undo:
        """Return what takes back what all of them are about to change."""
        found = [s.undo() for s in self.strategies]

        def every() -> None:
            for back in found:
                back()

        return every

    def augment(self, batch: Batch) -> Batch:
        """Hand the batch from one to the next."""
        for s in self.strategies:
            batch = s.augment(batch)
        return batch

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return the loss that replaces cross-entropy, None if all leave it; no two of them replace it."""
        return next((loss for s in self.strategies if (loss := s.loss(model, batch, out)) is not None), None)

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


def _refuse_clash(one: Strategy, other: Strategy) -> None:
    names = f"{type(one).__name__} and {type(other).__name__}"
    if type(one).loss is not Strategy.loss and type(other).loss is not Strategy.loss:
        raise ConfigError(f"{names} both replace the loss; chain one of them")
    if clash := (one.owns & (other.owns | other.uses)) | (other.owns & one.uses):
        raise ConfigError(f"{names} both work on the {' and the '.join(sorted(clash))}; chain one of them")
