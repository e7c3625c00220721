"""What every gallery promises: vectors go in once, keep the space that made them, and are found by exact id.

The score of a query `q` against a row `x` is the cosine of the row with as many leading coordinates of the query,
`q[:d] . x[:d] / (|q[:d]| |x|)` with `d = min(len(q), len(x))`: a narrower row, which an older version wrote, is not
charged for what it has no coordinates for. A row that is wider than the query is read without its last coordinates;
its length is that of all. Equal scores are told apart by age: the older row comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from lifelong.types import Space

Value = str | int | float | bool | None
Where = Mapping[str, Value]
Vectors = np.ndarray[Any, Any] | Tensor
Payload = dict[str, Any]


class Hit(NamedTuple):
    """One found row.

    Args:
        id: Id of the row.
        score: Cosine in -1..1 on the coordinates that query and row have both, rounded to float32.
        space: Id of the space that made the row.
        payload: The caller's own copy of what was stored with it.
    """

    id: str
    score: float
    space: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class Row:
    """One stored row: its vector is `[D]` float32, bit for bit as it was given; `seq` says when it was written."""

    id: str
    seq: int
    space: str
    vector: np.ndarray[Any, np.dtype[np.float32]]
    payload: Payload


@dataclass(frozen=True, slots=True)
class Stats:
    """How much a gallery holds.

    Args:
        rows: Rows that can be found.
        by_space: The same, by id of the space that made them; no space without rows.
        sequence: Number of the newest change that is seen.
        bytes: Memory that searched vectors and indexes take, overwritten ones not yet swept out included; what is
            mapped from files is shared by all processes that read them.
        segments: Files (or what a backend has instead) among which the rows are spread.
        refused: Damaged ones that this process met and did without, since it opened the gallery.
    """

    rows: int
    by_space: dict[str, int]
    sequence: int
    bytes: int
    segments: int = 0
    refused: int = 0


class View(Protocol):
    """A gallery as it was at one moment; it never changes, whatever is written meanwhile."""

    @property
    def sequence(self) -> int:
        """Return the number of the newest change in it."""

    @property
    def spaces(self) -> frozenset[str]:
        """Return the ids of the spaces that have rows in it."""

    def stats(self) -> Stats:
        """Return how much it holds; what a process refused is known to the gallery only."""

    def search(
        self,
        queries: Vectors,
        space: Space,
        k: int = 10,
        where: Where | None = None,
        *,
        offset: int = 0,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """Return the best hits of each query; see `Gallery.search`."""


class Gallery(Protocol):
    """Ids, vectors and payloads that are written once and searched by every later model that may read them."""

    def add(
        self, ids: Sequence[str | int], vectors: Vectors, space: Space, payload: Sequence[Payload] | None = None
    ) -> int:
        """Store rows, all or none; an id that is there already is overwritten.

        Args:
            ids: N different ids; an integer is stored as its decimal string.
            vectors: `[N, D]` floating point, finite, none of them zero; D is `space.dim`.
            space: What made them; its id, width and family must agree with earlier rows.
            payload: N dicts of plain JSON values, or None for empty ones.

        Returns:
            The sequence number of the last row, which is durable by now.

        Raises:
            DataError: Wrong ids, vectors or payload; nothing is stored.
            SpaceError: The space is known with another width or family; nothing is stored.
        """

    def renew(self, rows: Sequence[Row], vectors: Vectors, space: Space) -> int:
        """Store new vectors for rows, all at once; a row that was removed or overwritten since it was read is left.

        Args:
            rows: As they were read; ids and payloads stay.
            vectors: `[N, D]`, as for `add`.
            space: What made them.

        Returns:
            How many were renewed, durably by now.

        Raises:
            DataError: As for `add`.
            SpaceError: As for `add`.
        """

    def remove(self, ids: Sequence[str | int]) -> int:
        """Remove rows durably and return how many of them were there."""

    def get(self, ids: Sequence[str | int]) -> list[Row | None]:
        """Return the row of each id, None where there is none."""

    def rows(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """Return up to `limit` rows whose sequence number is above `after`, oldest first."""

    def search(
        self,
        queries: Vectors,
        space: Space,
        k: int = 10,
        where: Where | None = None,
        *,
        offset: int = 0,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """Return up to `k` hits of each query, best first.

        Args:
            queries: `[N, D]` floating point, finite, none of them zero; D is `space.dim`.
            space: What made the queries; only rows of the spaces in `space.reads` are found, all of its family.
            k: Hits wanted, 1 or more; a smaller gallery returns what there is.
            where: Payload keys and the values that they must have; a row without the key never matches.
            offset: Hits to leave out at the front, for paging; pages fit together within one `View`.
            exact: Compare with every row; without it, a large gallery may miss a few (never a wrong score or id).

        Raises:
            DataError: Wrong queries, `k`, `where` or `offset`.
            SpaceError: The space is known with another width, or one that it reads with another family.
        """

    def view(self) -> View:
        """Return the gallery as it is now, to be used for the whole of one request."""

    def stats(self) -> Stats:
        """Return how much is stored."""

    def commit(self) -> int:
        """Make everything that was added durable and return its sequence number."""

    def refresh(self) -> int:
        """See what other processes have written and return the newest sequence number."""

    def close(self) -> None:
        """Let go of files and locks; views stay usable."""


class Current:
    """What a gallery answers by its newest view; a backend says which that is."""

    def view(self) -> View:
        """Return the gallery as it is now."""
        raise NotImplementedError

    def search(
        self,
        queries: Vectors,
        space: Space,
        k: int = 10,
        where: Where | None = None,
        *,
        offset: int = 0,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """Return up to `k` hits of each query, best first; see `Gallery.search`."""
        return self.view().search(queries, space, k, where, offset=offset, exact=exact)

    def stats(self) -> Stats:
        """Return how much it holds."""
        return self.view().stats()
