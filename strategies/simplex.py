"""d-Simplex stationary representations: features are trained against fixed vertices that never move.

Source: Pernici et al. 2021, "Class-incremental learning with pre-allocated fixed classifiers"; Biondi et al. 2023,
    "CL2R: Compatible Lifelong Learning Representations" (cosine distillation from the previous model).
Differs: logits are scale * cos(z, w) instead of z w (`scale=None` gives the papers' form): embeddings are compared by
    cosine later, and with a small scale a feature stays a mixture of the vertices it is undecided between, which is
    what a later model reproduces. The distillation looks at the whole batch, not at the memory half only, with a
    constant weight. Both were chosen on validation data (docs/log.md), never on a test split.
Checked: geometry by property (tests/test_heads.py); with `distill=0` it keeps no previous version
    (tests/test_strategies.py); what it does for cross-version search is printed by every `lifelong demo`, beside the
    plain model.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy
from lifelong.learning.strategy import State
from lifelong.models import Classifier, build
from lifelong.types import Batch, Experience, Output


@final
class Simplex(Strategy):
    """Put a fixed d-Simplex classifier on the model and keep features where the previous version had them.

    It does not prevent forgetting by itself: chain it with rehearsal.

    Args:
        classes: K, pre-allocated; the backbone's feature width must be K - 1. More can never be learned.
        scale: Of the cosine logits; None for plain products.
        distill: Weight of 1 - cos(feature, previous version's feature); 0 leaves it out.
        downwards: Class 0 takes the last vertex, class 1 the one before: a model that was trained elsewhere has
            the first ones.
    """

    needs = Needs(
        distributed=True, boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"})
    )
    owns = frozenset({"head", "space"})

    exempt = {"beats naive": "it makes features comparable; chain it with rehearsal against forgetting"}  # noqa: RUF012

    def __init__(
        self, classes: int = 64, scale: float | None = 4.0, distill: float = 1.0, downwards: bool = False
    ) -> None:
        if classes < 2 or distill < 0:
            raise ConfigError(f"need classes >= 2 and distill >= 0, got classes={classes}, distill={distill}")
        self.classes, self.scale, self.distill, self.downwards = classes, scale, distill, downwards
        self.previous: Classifier | None = None

    def adapt(self, model: nn.Module) -> None:
        """Replace the head."""
        assert isinstance(model, Classifier)
        model.with_head("simplex", classes=self.classes, scale=self.scale, downwards=self.downwards)
        self.spec = model.spec()

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return distill * (1 - mean cosine to the previous version's features)."""
        if self.previous is None:
            return None
        if next(self.previous.parameters()).device != batch.x.device:  # it was restored from disk
            self.previous.to(batch.x.device)
        with torch.no_grad():
            old = self.previous.backbone(batch.x)
        return self.distill * (1 - F.cosine_similarity(out.features, old, dim=1).mean())

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Remember the model as the previous version."""
        if self.distill:
            self._remember({name: t.detach().clone() for name, t in model.state_dict().items()})

    def state(self) -> State:
        """Return the previous version's weights."""
        return {"previous": {} if self.previous is None else dict(self.previous.state_dict())}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.previous = None
        if state["previous"]:
            self._remember(state["previous"])

    def _remember(self, weights: dict[str, Tensor]) -> None:
        device = next(iter(weights.values())).device
        self.previous = build(self.spec, device=device).eval().requires_grad_(False)
        self.previous.load_state_dict(weights)
