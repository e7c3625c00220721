"""d-Simplex with a higher-order-dependency loss: fixed vertices, and a contrast of each feature with its old self.

Source: Biondi et al. 2024, "Stationary Representations: Optimally Approximating Compatibility and Implications for
    Improved Model Replacements" (IAM-CL2R), loss lambda CE + (1 - lambda) HOC, lambda .1, mu 10.
Differs: with `form="reference"` nothing from their code: samples of the same class count as exp(0) in the sum, and the
    positive pair is not in it. `form="textbook"` leaves the same class out and the positive pair in.
Checked: closed forms of both (tests/test_simplex_hoc.py); class-incremental claims with and without a replacement in
    mid-stream (benchmarks/studies/stationary.py).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Needs, Strategy
from lifelong.learning.frozen import Frozen
from lifelong.learning.strategy import State
from lifelong.models import Classifier
from lifelong.types import Batch, Experience, Output

FORMS = ("reference", "textbook")


def hoc(new: Tensor, old: Tensor, y: Tensor, mu: float = 10.0, form: str = "reference") -> Tensor:
    """Return the mean over samples of -mu cos(old_i, new_i) + log sum_j exp(mu cos(old_i, new_j)), j of other classes.

    Args:
        new: Features `[B, D]`.
        old: Features `[B, D]` of the same samples by the previous model; no gradient reaches them.
        y: Class indices `[B]`.
        mu: Factor on the cosines.
        form: `reference` adds a 1 to the sum for each sample of the same class, itself included; `textbook` adds the
            positive pair instead.
    """
    s = mu * F.normalize(old.detach(), dim=1) @ F.normalize(new, dim=1).T
    same = y[:, None] == y[None, :]
    if form == "reference":
        against = s.masked_fill(same, 0.0)
    else:
        against = s.masked_fill(same & ~torch.eye(len(y), dtype=torch.bool, device=y.device), -torch.inf)
    return (against.logsumexp(1) - s.diagonal()).mean()


@final
class SimplexHOC(Strategy):
    """Put a fixed d-Simplex classifier on the model and train with `ce` * CE + (1 - `ce`) * HOC.

    The previous model is the one that an experience begins with: after a replacement, the one that replaced it. The
    first experience is trained with cross-entropy alone, unless the model comes trained. It does not prevent forgetting
    by itself: chain it with rehearsal.

    Args:
        classes: K, pre-allocated; the backbone's feature width must be K - 1. More can never be learned.
        ce: lambda, share (0..1) of the cross-entropy.
        mu: Factor on the cosines, > 0.
        form: `reference` or `textbook`.
        scale: Of the cosine logits; None for plain products.
        downwards: Class 0 takes the last vertex, class 1 the one before: a model that was trained elsewhere has
            the first ones.
        pretrained: The model comes trained: hold the first experience to it, too.
    """

    needs = Needs(distributed=True, boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il"}))
    owns = frozenset({"head", "space"})
    reshapes = True
    exempt = {  # noqa: RUF012 - a constant
        "beats naive": "it makes features comparable; chain it with rehearsal against forgetting",
        "new labels": "a tenth of the cross-entropy moves new classes slowly: a few steps do not take them over",
    }

    def __init__(
        self,
        classes: int = 64,
        ce: float = 0.1,
        mu: float = 10.0,
        form: str = "reference",
        scale: float | None = None,
        downwards: bool = False,
        pretrained: bool = False,
    ) -> None:
        if classes < 2 or not 0 <= ce <= 1 or not mu > 0:
            raise ConfigError(f"need classes >= 2, 0 <= ce <= 1, mu > 0, got classes={classes}, ce={ce}, mu={mu}")
        if form not in FORMS:
            raise UnknownName.among("form of the loss", form, FORMS)
        self.head = {"classes": classes, "scale": scale, "downwards": downwards}
        self.ce, self.mu, self.form, self.previous, self.trained = ce, mu, form, Frozen(), pretrained

    def adapt(self, model: nn.Module) -> None:
        """Replace the head."""
        assert isinstance(model, Classifier)
        model.with_head("simplex", **self.head)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Remember the model that the experience begins with."""
        if self.trained:
            self.previous.take(model)

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return the weighted sum, None (cross-entropy) where there is no previous model."""
        if not self.previous:
            return None
        old = self.previous(batch.x, batch.task).features
        held = hoc(out.features, old, batch.y, self.mu, self.form)
        return self.ce * F.cross_entropy(out.logits, batch.y) + (1 - self.ce) * held

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Let go of the previous model: the model is the next one's."""
        self.previous.restore({})
        self.trained = True

    def state(self) -> State:
        """Return the previous model."""
        return {"trained": self.trained, "previous": self.previous.state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.trained = state["trained"]
        self.previous.restore(state["previous"])
