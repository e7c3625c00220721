"""What an old version wrote of the last samples: new features are trained to find their class among these rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Any]


@final
class OldRows:
    """The old version's features of the last samples, with their classes: a small gallery to be searched.

    Its features come from a frozen model, so rows stay what they are however long they are kept.

    Args:
        room: Rows kept; 0 keeps none.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.rows, self.y, self.ids = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64), torch.zeros(0).long()

    def add(self, features: Tensor, y: Tensor, ids: Tensor) -> None:
        """Add old features `[N, D]` of samples with class indices `y` `[N]` and `ids` `[N]`; the oldest make room."""
        rows = features.detach()
        kept = self.rows.to(rows) if len(self.rows) else rows[:0]
        self.rows = torch.cat([kept, rows])[-self.room :]
        self.y, self.ids = torch.cat([self.y.to(y), y])[-self.room :], torch.cat([self.ids.to(ids), ids])[-self.room :]

    def undo(self) -> Callable[[], None]:
        """Return what takes back all that is added from here on."""
        rows, y, ids = self.rows, self.y, self.ids

        def back() -> None:
            self.rows, self.y, self.ids = rows, y, ids

        return back

    def loss(self, features: Tensor, y: Tensor, ids: Tensor, scale: float) -> Tensor:
        """Return the mean of -log of the share that the right class has in sum_j exp(scale * cos(feature, row_j)).

        Narrower features are compared with as many first coordinates of the rows. No sample meets its own rows; one
        whose class has no other row takes no part; without any, the loss is 0.
        """
        s = scale * F.normalize(features, dim=1) @ F.normalize(self.rows[:, : features.shape[1]], dim=1).T
        s = s.masked_fill(ids[:, None] == self.ids, -torch.inf)
        right = s.masked_fill(y[:, None] != self.y, -torch.inf)
        asked = (right > -torch.inf).any(1)
        if not asked.any():
            return features.sum() * 0.0
        return (s[asked].logsumexp(1) - right[asked].logsumexp(1)).mean()

    def state(self) -> State:
        """Return the rows, or nothing."""
        return {"rows": self.rows.clone(), "y": self.y.clone(), "ids": self.ids.clone()} if len(self.rows) else {}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.clear()
        if state:
            self.rows, self.y, self.ids = (state[key].clone() for key in ("rows", "y", "ids"))
