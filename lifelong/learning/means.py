"""The mean embedding of each class: what an old version's classifier would say of classes that it never had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Any]


@final
class ClassMeans:
    """Running means of unit features by class index; a class without samples takes no part.

    They are sums and counts in float64: with features of a frozen model they depend on which samples came, and hardly
    on their order.
    """

    def __init__(self) -> None:
        self.sums, self.counts = torch.zeros(0, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)

    def clear(self) -> None:
        """Forget everything."""
        self.restore({})

    def add(self, features: Tensor, y: Tensor) -> None:
        """Add features `[N, D]` of class indices `y` `[N]`."""
        z, room = F.normalize(features.detach(), dim=1).double(), int(y.max()) + 1 - len(self.counts)
        if room > 0 or self.sums.device != z.device:
            kept = self.sums.to(z).reshape(len(self.counts), -1) if len(self.counts) else z[:0]
            self.sums = torch.cat([kept, z.new_zeros(max(room, 0), z.shape[1])])
            self.counts = torch.cat([self.counts.to(y), y.new_zeros(max(room, 0))])
        self.sums = self.sums.index_add(0, y, z)  # a new one: an undo may want the old one back
        self.counts = self.counts.index_add(0, y, torch.ones_like(y))

    def undo(self) -> Callable[[], None]:
        """Return what takes back all that is added from here on."""
        sums, counts = self.sums, self.counts

        def back() -> None:
            self.sums, self.counts = sums, counts

        return back

    def loss(self, features: Tensor, y: Tensor, scale: float) -> Tensor:
        """Return the cross-entropy of scale * cos(features, class means) with `y`, over the classes that have one.

        Narrower features are compared with as many first coordinates of the means.
        """
        rows = F.normalize(self.sums[:, : features.shape[1]], dim=1).to(features)
        logits = scale * F.normalize(features, dim=1) @ rows.T
        return F.cross_entropy(logits.masked_fill(self.counts == 0, -torch.inf), y)

    def state(self) -> State:
        """Return sums and counts, or nothing."""
        return {"sums": self.sums.clone(), "counts": self.counts.clone()} if len(self.counts) else {}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.sums = state["sums"].clone() if state else torch.zeros(0, 0, dtype=torch.float64)
        self.counts = state["counts"].clone() if state else torch.zeros(0, dtype=torch.int64)
