"""A large tensor whose rows change slowly: as it was once, and the rows that have changed since.

A memory of 50,000 samples changes in a few rows between two commits. Copying and writing all of it each time is most of
what a commit costs; its base is copied and written once, and after that the changed rows alone. When those that were
copied since come to as many as the base has, whoever writes is asked for a new base: with d rows a commit and N in all,
that is every sqrt(2 N / d) commits, where the sum of both costs is smallest. Training is not held up by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

LARGE = 1 << 20  # bytes from which on it pays


@final
@dataclass(slots=True, eq=False)
class Base:
    """A tensor that is never changed again.

    Args:
        tensor: `[N, ...]`.
        sha256: Of the file that holds it, once there is one.
    """

    tensor: Tensor
    sha256: str = ""


@final
@dataclass(slots=True, eq=False)
class Wish:
    """A new base that is wanted; who writes a copy may put it together, in a thread of its own.

    Args:
        base: The copy as a whole, once somebody has made it.
    """

    base: Base | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Patched:
    """A tensor `[M, ...]` in parts, none of which is ever changed.

    Args:
        base: As it was, `[N, ...]`.
        rows: Row numbers `[R]` i64 that are new or have changed since.
        values: Those rows `[R, ...]`.
        size: M.
        wish: Where a new base may be left.
    """

    base: Base
    rows: Tensor
    values: Tensor
    size: int
    wish: Wish | None = None

    def whole(self) -> Tensor:
        """Return the tensor, in memory of its own."""
        old = self.base.tensor
        found = old.new_empty((self.size, *old.shape[1:]))
        kept = min(self.size, len(old))
        found[:kept] = old[:kept]
        found[self.rows] = self.values
        return found


@final
class Slow:
    """Copies a tensor again and again, of which few rows change in between.

    Args:
        capacity: Rows at most.
    """

    def __init__(self, capacity: int) -> None:
        self._base: Base | None = None
        self._changed = torch.zeros(capacity, dtype=torch.bool)  # since the base
        self._wish: Wish | None = None
        self._since = self._changed  # since the last copy that came with a wish
        self._copied = 0  # rows, since the base

    def wrote(self, rows: Tensor) -> None:
        """Take note that `rows` `[R]` have changed, or are new."""
        if self._base is not None:
            self._changed[rows] = True
            self._since[rows] = True

    def copy(self, tensor: Tensor) -> Tensor | Patched:
        """Return a copy of `tensor` `[M, ...]`; what was returned before stays as it is."""
        if tensor.nbytes < LARGE:
            return tensor.clone()
        if self._base is None:
            self._base = Base(tensor.clone())
        if self._wish is not None and self._wish.base is not None:
            self._base, self._changed, self._copied = self._wish.base, self._since, 0
        rows = self._changed.nonzero().flatten()
        self._copied += len(rows)
        self._wish = Wish() if self._copied > len(self._base.tensor) else None
        self._since = torch.zeros_like(self._changed) if self._wish else self._changed
        return Patched(self._base, rows, tensor[rows], len(tensor), self._wish)


def whole(value: Tensor | Patched) -> Tensor:
    """Return a tensor that may come in parts."""
    return value.whole() if isinstance(value, Patched) else value
