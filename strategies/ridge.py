"""Streaming ridge regression on random features of a frozen backbone.

Source: McDonnell et al. 2023, "RanPAC: Random Projections and Pre-trained Models for Continual Learning", section 4.
Differs: no parameter-efficient tuning on the first task; the ridge is a fixed argument instead of being chosen on a
    part of each task; a sample can be taken back.
Checked: equals ridge regression on all samples at once whatever the order and the batches; forgetting a sample equals
    never having seen it (tests/test_ridge.py).
"""

from __future__ import annotations

from typing import final

from torch import nn

from lifelong.learning import Needs, Strategy
from lifelong.learning.passes import FirstPass
from lifelong.learning.strategy import State
from lifelong.models import Classifier
from lifelong.models.closed_form import RidgeHead
from lifelong.types import Batch, Experience, Output


@final
class StreamingRidge(Strategy):
    """Freeze the backbone and keep the Gram matrices of a ridge regression; there is nothing to step.

    Args:
        width: M random ReLU features, drawn once from the model's generator; 0 regresses on the features themselves.
        ridge: Added to the diagonal of the Gram matrix, > 0.
    """

    needs = Needs(distributed=True)
    owns = frozenset({"head", "weights"})

    def __init__(self, width: int = 1000, ridge: float = 1.0) -> None:
        self.width, self.ridge, self.first = width, ridge, FirstPass()

    def adapt(self, model: nn.Module) -> None:
        """Freeze everything and put the head on top."""
        assert isinstance(model, Classifier)
        model.requires_grad_(False)
        model.with_head("ridge", width=self.width, ridge=self.ridge)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start counting the first pass."""
        self.first.begin(experience)

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Add the samples' features to the head's sums, once each."""
        fresh = self.first.new(batch)
        assert isinstance(model, Classifier) and isinstance(model.head, RidgeHead)
        model.head.update(out.features[: len(fresh)], fresh.y)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Stop counting."""
        self.first.end()

    def state(self) -> State:
        """Return how far the first pass is; the sums are the model's."""
        return {"first": self.first.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.first.restore(state["first"])
