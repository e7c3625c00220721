"""BT2: a new version keeps its own embedding whole, and the old version's space stands in its first coordinates.

Source: Zhou et al. 2023, "BT2: Backward-compatible Training with Basis Transformation", C = 2, A = 32; see
    `lifelong.models.compatible` for the layer.
Differs: in place of the old version's classifier, its rows of the last samples are searched (soft nearest neighbours):
    a query is answered by rows, and class means pulled features past them. `rows=0` takes the pseudo-classifier of
    `bct` (running means, scaled cosine). Loss weights are (10, 20, 20) instead of (1, 10, 5). Both were chosen on
    validation data (docs/log.md). The new model by itself (phi') trains beside, in the same steps, unless a trained one
    is given; so it sees what a chained strategy rehearses, and there is one training loop. Both it and the wide network
    go on from the weights of the model that the learner has. The classifier is the model's own head on all coordinates.
    A finished version does not train any more.
Checked: geometry of the layer by property (tests/test_compatible.py); losses against their definition, the folded
    version gives the same features (tests/test_bt2.py); cross-version search (benchmarks/studies/compatible.py).
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy
from lifelong.learning.frozen import Frozen
from lifelong.learning.means import ClassMeans
from lifelong.learning.neighbours import OldRows
from lifelong.learning.strategy import State, Undo
from lifelong.models import Classifier
from lifelong.models.compatible import LearnedBasis, spaces, update
from lifelong.types import Batch, Experience, Output


@final
class BasisTransformation(Strategy):
    """Make each experience a version whose features grow by `extra`, and whose first ones mean what the old ones meant.

    The first version has nothing to be compatible with, unless `old` is given.

    Args:
        extra: A, coordinates added by each version.
        c: Weight of the new model's own embedding against the added coordinates, > 0.
        own: Weight of 1 - cos(own embedding, the new model by itself).
        classes: Weight of -log of the share that rows of the right class have among the old version's rows.
        features: Weight of 1 - cos(first coordinates, the old version's features).
        scale: Factor on the cosines to old rows, > 0.
        rows: Old features that are searched, of the last samples trained on; 0 takes class means in their place.
        old: The version to be compatible with from the start; None begins anew.
        new: The new model by itself, if it has been trained already; for the first experience only.
    """

    needs = Needs(boundaries=True, bounded=False, scenarios=frozenset({"class-il", "domain-il", "data-il"}))
    owns = frozenset({"space", "weights"})
    reshapes = True
    exempt = {  # noqa: RUF012 - a constant
        "beats naive": "it makes versions comparable; chain it with rehearsal against forgetting",
        "flat cost": "each experience makes a version that is wider than the one before it, by `extra`",
    }

    def __init__(
        self,
        extra: int = 32,
        c: float = 2.0,
        own: float = 10.0,
        classes: float = 20.0,
        features: float = 20.0,
        scale: float = 20.0,
        rows: int = 1000,
        old: Classifier | None = None,
        new: Classifier | None = None,
    ) -> None:
        if extra < 1 or not c > 0 or min(own, classes, features, rows) < 0 or not scale > 0:
            raise ConfigError(
                f"need extra >= 1, c > 0, scale > 0, rows and weights >= 0, "
                f"got extra={extra}, c={c}, scale={scale}, {rows=}, {own=}, {classes=}, {features=}"
            )
        if new is not None and old is None:
            raise ConfigError("a new model by itself needs the old one to be compatible with; give old as well")
        self.extra, self.c, self.scale, self.own, self.classes, self.features = extra, c, scale, own, classes, features
        self.means, self.rows, self.old, self.new = ClassMeans(), OldRows(rows), Frozen(), new
        self.finished = old is not None
        if old is not None:
            self.old.take(old)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Freeze the model as the old version, and put the next one in its place."""
        assert isinstance(model, Classifier)
        if not self.finished:
            return
        if not self.old:
            self.old.take(model)
        assert self.old.model is not None
        head: dict[str, Any] = model.spec()["head"]
        model.backbone = update(model, spaces(self.old.model), self.extra, self.c, self.new)
        model.with_head(**head)
        self.new = None
        self.means.clear()
        self.rows.clear()

    def undo(self) -> Undo:
        """Return what takes back what the step adds to the class means, or to the rows."""
        return self.rows.undo() if self.rows.room else self.means.undo()

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return what binds the version to the old one and to the new model by itself."""
        if not self.old:
            return None
        basis = model.backbone
        assert isinstance(basis, LearnedBasis)
        old, z = self.old(batch.x, batch.task).features, basis.twin(batch.x)
        self._wrote(old, batch)
        widths = [*basis.net.older, basis.net.old]
        bound = torch.stack([self._bound(out.features[:, :width], old[:, :width], batch) for width in widths]).mean()
        total = self.own * _turned(basis.own(out.features), z.detach()) + bound
        return total if basis.trained else total + F.cross_entropy(basis.twin_head(z), batch.y)

    def _wrote(self, old: Tensor, batch: Batch) -> None:
        if self.rows.room:
            self.rows.add(old, batch.y, batch.ids)
        else:
            self.means.add(old, batch.y)

    def _bound(self, first: Tensor, old: Tensor, batch: Batch) -> Tensor:
        if self.rows.room:
            found = self.rows.loss(first, batch.y, batch.ids, self.scale)
        else:
            found = self.means.loss(first, batch.y, self.scale)
        return self.classes * found + self.features * _turned(first, old)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Finish the version: fold its maps into one, drop what was there for training only."""
        if isinstance(model.backbone, LearnedBasis):
            model.backbone = model.backbone.served()
        model.requires_grad_(False)
        self.finished = True
        self.old.restore({})
        self.means.clear()
        self.rows.clear()

    def state(self) -> State:
        """Return the old version, its class means and its rows."""
        kept = {"means": self.means.state(), "rows": self.rows.state()}
        return {"finished": self.finished, "old": self.old.state(), **kept}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.finished = state["finished"]
        self.old.restore(state["old"])
        self.means.restore(state["means"])
        self.rows.restore(state["rows"])


def _turned(z: Tensor, target: Tensor) -> Tensor:
    """Return the mean of 1 - cos."""
    return 1 - F.cosine_similarity(z, target, dim=1).mean()
