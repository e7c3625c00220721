"""Nearest mean classifier on frozen features: the baseline that a continual method has to beat.

Source: Janson et al. 2022, "A Simple Baseline that Questions the Use of Pretrained-Models in Continual Learning".
Differs: classes without samples are never predicted, a zero feature is not NaN, ids are arbitrary.
Checked: equals the class means of all samples at once, whatever the order and the batches, to 1e-12
    (tests/test_strategies.py).
"""

from __future__ import annotations

from typing import final

from torch import nn

from lifelong.learning import Needs, Strategy
from lifelong.learning.passes import FirstPass
from lifelong.learning.strategy import State
from lifelong.types import Batch, Experience, Output


@final
class NearestMean(Strategy):
    """Freeze the backbone and keep one running mean per class; there is nothing to step.

    Args:
        normalise: Scale features to unit norm first.
    """

    needs = Needs(distributed=True)
    owns = frozenset({"head", "weights"})

    def __init__(self, normalise: bool = True) -> None:
        self.normalise, self.first = normalise, FirstPass()

    def adapt(self, model: nn.Module) -> None:
        """Freeze everything and put a prototype head on top."""
        model.requires_grad_(False)
        model.with_head("prototype", normalise=self.normalise)  # type: ignore[operator]

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start counting the first pass."""
        self.first.begin(experience)

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Add the samples' features to their classes' sums."""
        fresh = self.first.new(batch)
        model.head.update(out.features[: len(fresh)], fresh.y)  # type: ignore[operator,union-attr]

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Stop counting."""
        self.first.end()

    def state(self) -> State:
        """Return how far the first pass is; the means are the model's."""
        return {"first": self.first.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.first.restore(state["first"])
