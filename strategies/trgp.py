"""TRGP: GPM, and where a new task resembles an old one it may rescale the old knowledge for itself.

Source: Lin, Yang, Fan, Zhang 2022, "TRGP: Trust Region Gradient Projection for Continual Learning".
Differs: as GPM (`strategies.gpm`) in what is projected, biases, heads and rank. The gradient that decides which older
    tasks are related is the mean over the first `looks` training steps, taken under full projection, not one over
    a batch at the old weights: it costs nothing and a stream that can be read once will do. Q is kept as Q - I, so
    that weight decay pulls it towards doing nothing, and trained in units of 1 / |W B| (of the largest singular value,
    if above 1): without them W and Q cannot share a learning rate, for along Q the loss is |W B|^2 times as steep.
    The gradient of W leaves out what comes through W B where that is held constant. The public code leaves the
    strongest new direction unprotected, and switches all scaling off when the first layer has no related task;
    neither is copied. Where no ids are told (domain-incremental) nothing is scaled, and what is left is GPM with a
    basis for each task.
Checked: with eps above 1 it ends at the weights of GPM bit for bit, old tasks' outputs stay, planted errors
    (tests/test_trgp.py); laws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy
from lifelong.learning.protection import Energy
from lifelong.learning.strategy import State
from lifelong.learning.trust import Trust, related
from lifelong.types import Batch, Experience, Output


@final
class TRGP(Strategy):
    """Keep steps out of old tasks' spans; let a task scale the weights along the spans of related ones.

    Args:
        eps: Share of the gradient inside an old task's span that makes it related, >= 0; above 1 nothing is.
        threshold: Share (0..1) of a layer's input energy that a task's basis holds; one for all, or one per layer
            in model order. 0 protects nothing.
        growth: Added to the threshold for each finished task.
        samples: Samples of a task that its basis is taken from.
        looks: First steps of a task whose mean gradient decides what it is related to.
        seed: Of this strategy's own generator.
    """

    needs = Needs(distributed=True, boundaries=True, bounded=False, scenarios=frozenset({"domain-il", "task-il"}))
    owns = frozenset({"weights"})
    keeps_delta = True
    by_gradient = True
    strength = "threshold"

    def __init__(
        self,
        eps: float = 0.5,
        threshold: float | Sequence[float] = 0.97,
        growth: float = 0.003,
        samples: int = 300,
        looks: int = 4,
        seed: int = 0,
    ) -> None:
        if eps < 0:
            raise ConfigError(f"eps must be at least 0, got {eps}")
        self.eps = eps
        self.trust = Trust(Energy(threshold, growth), samples, looks, seed)

    def adapt(self, model: nn.Module) -> None:
        """Give the model a place for weights by task."""
        self.trust.adapt(model)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a new task; an id that it carries must be new."""
        self.trust.begin(model, experience)

    def noted(self) -> list[Tensor]:
        """Return the gradients' coordinates along the memory."""
        return self.trust.noted()

    def project(self, model: nn.Module) -> None:
        """Look at the first gradients, then choose the related tasks of each layer."""
        trust = self.trust
        for name, mean in trust.look(model).items():
            record = trust.scaling.records[name]
            chosen = related(record, mean, trust.finished, self.eps, trust.scaling.most)
            trust.scaling.relate(trust.task, name, chosen)
        trust.correct(model, self.step_rate)

    def project_delta(self, model: nn.Module, before: Mapping[str, Tensor]) -> None:
        """Take out of the step what old inputs would feel."""
        self.trust.hold(model, before)

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the task's sample, once each."""
        self.trust.observe(batch)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Give the task its basis and keep its scales."""
        self.trust.end(model)

    def state(self) -> State:
        """Return bases, scales and the running task's sample."""
        return self.trust.state()

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.trust.restore(state)

    def summary(self) -> dict[str, float]:
        """Return how much of the input space is protected, and how many relations the last task has."""
        return self.trust.summary()
