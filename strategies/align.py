"""Align: train freely, then map the new features onto the old ones. The baseline that compatible training has to beat.

Source: orthogonal Procrustes (Schoenemann 1966) and ridge regression, on pairs of features of the same samples.
Differs: nothing is trained for compatibility; features are scaled to unit length and not centred.
Checked: a rotated copy is recovered (tests/test_alignment.py); answers stay the same under the orthogonal map
    (tests/test_bt2.py); beside bct and bt2 (benchmarks/studies/compatible.py).
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Needs, Reservoir, Strategy
from lifelong.learning.frozen import Frozen
from lifelong.learning.strategy import State
from lifelong.models import Classifier, outputs
from lifelong.models.alignment import MAPS, Mapped
from lifelong.models.cosine import CosineHead
from lifelong.models.heads import LinearHead
from lifelong.types import Batch, Experience, Output


@final
class Align(Strategy):
    """At the end of each experience, put the linear map in place that brings features nearest to the version before.

    Chained behind rehearsal, it fits on rehearsed samples too.

    Args:
        kind: `orthogonal` (rankings among the new features stay as they are) or `ridge`.
        capacity: Samples, drawn uniformly from those trained on, that the map is fitted on.
        seed: Of its own generator.
        old: The version to map onto from the start; None begins anew.
    """

    needs = Needs(boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il"}))
    owns = frozenset({"space", "weights"})
    uses = frozenset({"head"})
    exempt = {  # noqa: RUF012 - a constant
        "beats naive": "it turns finished features; chain it with rehearsal against forgetting"
    }

    def __init__(
        self, kind: str = "orthogonal", capacity: int = 2000, seed: int = 0, old: Classifier | None = None
    ) -> None:
        if kind not in MAPS:
            raise UnknownName.among("map", kind, MAPS)
        if capacity < 1:
            raise ConfigError(f"need capacity >= 1, got {capacity}")
        self.kind, self.capacity, self.seed, self.old = kind, capacity, seed, Frozen()
        self.pairs = Reservoir(capacity, seed)
        self.seen: Batch | None = None  # what this step trains on
        self.finished = old is not None
        if old is not None:
            self.old.take(old)

    def adapt(self, model: nn.Module) -> None:
        """Put a matrix, I at first, behind the backbone."""
        assert isinstance(model, Classifier)
        inner: Any = model.backbone
        width = self.old.model.dim if self.old.model else model.dim
        with torch.device("meta"):
            mapped = Mapped(inner.spec(), width)
        mapped.inner, mapped.fixed.matrix = inner, torch.eye(width, model.dim)
        model.backbone = mapped
        if width != model.head.dim:
            model.with_head(**model.spec()["head"])

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Freeze the model as the old version, unless it was given or there is none yet."""
        if self.finished and not self.old:
            self.old.take(model)

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Add nothing to the loss; note the samples of this step, remembered ones too."""
        self.seen = batch
        return None

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the samples of the step that was taken as pairs."""
        if self.old and self.seen is not None:
            self.pairs.add(self.seen)
        self.seen = None

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Fit the map and put it in place; the head takes it back, so that answers stay (exactly, if orthogonal)."""
        assert isinstance(model, Classifier) and isinstance(model.backbone, Mapped)
        if self.old.model is not None and len(self.pairs.store):
            device = next(iter(model.state_dict().values())).device
            x = self.pairs.store.all.x
            new, old = (outputs(m, x, device=device).features for m in (model, self.old.model))
            turn = MAPS[self.kind](new, old).to(device)
            fixed = model.backbone.fixed
            fixed.matrix = turn @ fixed.matrix
            _taken_back(model.head, turn)
        self.finished = True
        self.old.restore({})
        self.pairs = Reservoir(self.capacity, self.seed)

    def state(self) -> State:
        """Return the old version and the samples."""
        return {"finished": self.finished, "old": self.old.state(), "pairs": self.pairs.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.finished = state["finished"]
        self.old.restore(state["old"])
        self.pairs.restore(state["pairs"])


@torch.no_grad()
def _taken_back(head: nn.Module, turn: Tensor) -> None:
    if not isinstance(head, LinearHead | CosineHead):
        raise ConfigError(f"align needs a linear or cosine head, got {type(head).__name__}; choose one of them")
    head.weight.copy_(head.weight @ torch.linalg.pinv(turn))
