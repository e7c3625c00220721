"""Backward-compatible training: new features must also satisfy the old version's classifier.

Source: Shen et al. 2020, "Towards Backward-Compatible Representation Learning" (the influence loss); weight 10 and
    the pseudo-classifier (mean old feature of each class) for all classes as in the code of Zhou et al. 2023, "BT2".
Differs: the pseudo-classifier's rows and the features are scaled to unit length, logits are scale * cosine; the means
    are running means over the samples that are trained on, rehearsed ones included, instead of being taken beforehand.
Checked: the loss against its definition, pseudo-classes of the frozen model only (tests/test_bt2.py); pull 0 equals
    naive bit for bit (laws); cross-version search beside BT2 and alone (benchmarks/studies/compatible.py).
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy
from lifelong.learning.frozen import Frozen
from lifelong.learning.means import ClassMeans
from lifelong.learning.strategy import State, Undo
from lifelong.models import Classifier
from lifelong.types import Batch, Experience, Output


@final
class BackwardCompatible(Strategy):
    """Add pull * CE(scale * cos(features, mean old features of each class)).

    Each experience makes a new version that is compatible with the one before it; the first one has none before it,
    unless `old` is given.

    Args:
        pull: alpha; 0 leaves it out.
        scale: Of the cosine logits, > 0.
        old: The version to be compatible with from the start, with features as wide as the model's; None begins anew.
    """

    needs = Needs(distributed=True, boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il"}))
    owns = frozenset({"space"})
    strength = "pull"
    exempt = {  # noqa: RUF012 - a constant
        "beats naive": "it makes versions comparable; chain it with rehearsal against forgetting"
    }

    def __init__(self, pull: float = 10.0, scale: float = 10.0, old: Classifier | None = None) -> None:
        if pull < 0 or not scale > 0:
            raise ConfigError(f"need pull >= 0 and scale > 0, got pull={pull}, scale={scale}")
        self.pull, self.scale, self.means, self.old = pull, scale, ClassMeans(), Frozen()
        self.finished = old is not None  # a version that the next one has to be compatible with
        if old is not None:
            self.old.take(old)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Freeze the model as the old version, unless it was given or there is none yet."""
        assert isinstance(model, Classifier)
        if not self.pull or not self.finished:
            return
        if not self.old:
            self.old.take(model)
        assert self.old.model is not None
        if self.old.model.dim != model.dim:
            raise ConfigError(f"bct needs features as wide as the old version's {self.old.model.dim}, got {model.dim}")
        self.means.clear()

    def undo(self) -> Undo:
        """Return what takes back what the step adds to the class means."""
        return self.means.undo()

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return pull * the cross-entropy under the old version's classes, None in the first version."""
        if not self.pull or not self.old:
            return None
        self.means.add(self.old(batch.x, batch.task).features, batch.y)
        return self.pull * self.means.loss(out.features, batch.y, self.scale)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Let go of the old version: the model is the next one's."""
        self.finished = True
        self.old.restore({})
        self.means.clear()

    def state(self) -> State:
        """Return the old version and its class means."""
        return {"finished": self.finished, "old": self.old.state(), "means": self.means.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.finished = state["finished"]
        self.old.restore(state["old"])
        self.means.restore(state["means"])
