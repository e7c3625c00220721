"""Streaming linear discriminant analysis on frozen features: class means and one shared covariance.

Source: Hayes and Kanan 2020, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis", section 3.
Differs: the covariance follows from exact sums (the second moment minus the classes' means) instead of a running
    update around means that still move, so it does not depend on the order of samples; classes without samples are
    never predicted; there is no phase that initialises the covariance on a base set.
Checked: equals the batch closed form whatever the order and the batches, and scikit-learn's discriminant analysis;
    forgetting a sample equals never having seen it (tests/test_slda.py).
"""

from __future__ import annotations

from typing import final

from torch import nn

from lifelong.learning import Needs, Strategy
from lifelong.learning.passes import FirstPass
from lifelong.learning.strategy import State
from lifelong.models import Classifier
from lifelong.models.closed_form import LDAHead
from lifelong.types import Batch, Experience, Output


@final
class StreamingLDA(Strategy):
    """Freeze the backbone and keep the sums of a discriminant analysis; there is nothing to step.

    Args:
        shrinkage: Share (0..1] of the identity in the covariance.
    """

    needs = Needs(distributed=True)
    owns = frozenset({"head", "weights"})

    def __init__(self, shrinkage: float = 1e-2) -> None:
        self.shrinkage, self.first = shrinkage, FirstPass()

    def adapt(self, model: nn.Module) -> None:
        """Freeze everything and put the head on top."""
        assert isinstance(model, Classifier)
        model.requires_grad_(False)
        model.with_head("slda", shrinkage=self.shrinkage)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start counting the first pass."""
        self.first.begin(experience)

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Add the samples' features to the head's sums, once each."""
        fresh = self.first.new(batch)
        assert isinstance(model, Classifier) and isinstance(model.head, LDAHead)
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
