"""What readers of a gallery in PostgreSQL search: its rows as they were at one change."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, final

import numpy as np

from lifelong.errors import SpaceError, Unavailable
from lifelong.gallery import inputs
from lifelong.gallery.base import Hit, Stats, Vectors, Where
from lifelong.gallery.inputs import Doubles, Floats
from lifelong.gallery.postgres import Connection
from lifelong.gallery.rows import wanted as conditions
from lifelong.gallery.shards import KEPT_SECONDS, Shards
from lifelong.types import Space

SLACK = 32  # rows fetched beyond k: pgvector adds up in float32, which may misplace a few around the k-th
BLOCK = 64  # queries in one statement
FOUND = "id, seq, space, payload::text AS payload, vec"
Found = tuple[int, str, int, int, str, Floats]  # number of the query, id, seq, space, payload, vector


class Known(NamedTuple):
    """A space: its number, width, family, living rows, and whether it has an HNSW index."""

    number: int
    dim: int
    family: str
    rows: int
    indexed: bool


@final
@dataclass(frozen=True, slots=True)
class RemoteView:
    """A gallery as it was at one change.

    Args:
        shards: Its databases.
        sequence: Number of the change.
        known: Every space that was ever written, by id.
        taken: When, by `time.monotonic`.
    """

    shards: Shards
    sequence: int
    known: Mapping[str, Known]
    taken: float = field(default_factory=time.monotonic)

    @property
    def spaces(self) -> frozenset[str]:
        """Return the ids of the spaces that have rows in it."""
        return frozenset(name for name, space in self.known.items() if space.rows)

    def stats(self) -> Stats:
        """Return how much it holds; bytes are those of tables and indexes on the servers' disks."""
        query = "SELECT pg_total_relation_size('items') + pg_total_relation_size('history')"
        size = sum(int(n) for n in self.shards.each(lambda _, connection: _one(connection, query)))
        rows = {name: space.rows for name, space in self.known.items() if space.rows}
        indexes = sum(space.indexed for space in self.known.values())
        return Stats(sum(rows.values()), rows, self.sequence, size, indexes * len(self.shards.databases))

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
        """Return up to `k` hits of each query, best first; see `Gallery.search`.

        Raises:
            Unavailable: A server does not answer, or the view is minutes old and rows of it are forgotten.
        """
        known = self.known.get(inputs.checked(space).id)
        if known is not None and known.dim != space.dim:
            raise SpaceError(
                f"space {space.id!r} is stored with dim={known.dim}, got dim={space.dim}; "
                "give another model another space id"
            )
        inputs.readable(space, {name: self.known[name].family for name in space.reads & self.known.keys()})
        unit = inputs.queries(queries, space)
        wanted = inputs.page(k, offset)
        condition = conditions(inputs.condition(where)) if where else None
        readable = [self.known[name] for name in sorted(space.reads & self.known.keys())]
        hits: list[list[Hit]] = []
        for start in range(0, len(unit), BLOCK) if readable else ():
            hits += self._best(unit[start : start + BLOCK], wanted, readable, condition, exact=exact)
        self.still()
        return hits if readable else [[] for _ in unit]

    def still(self) -> None:
        """Raise Unavailable if rows that this view may have held are forgotten."""
        if time.monotonic() - self.taken < KEPT_SECONDS / 2:
            return
        query = "SELECT purged FROM state"
        if max(self.shards.each(lambda _, connection: int(_one(connection, query)))) > self.sequence:
            raise Unavailable(
                f"this view of the gallery is more than {KEPT_SECONDS} seconds old, and rows of it are forgotten; "
                "refresh() the gallery and take a new one"
            )

    def _best(
        self, unit: Doubles, wanted: slice, readable: Sequence[Known], condition: str | None, *, exact: bool
    ) -> list[list[Hit]]:
        widths = {space.dim: _at_width(unit, space.dim) for space in readable}
        exact |= any(not at.any(axis=1).all() for at in widths.values())  # nothing is nearest to nothing
        quick = [space for space in readable if space.indexed and not exact]
        full = [space for space in readable if space not in quick]
        found = self._fetched(widths, quick, full, wanted.stop, condition)
        counts = {space.number: np.zeros(len(unit), np.int64) for space in quick}
        for n, _, _, number, *_ in found:
            if number in counts:
                counts[number][n] += 1
        # An index scan that gave up early leaves room: that space is compared row by row.
        short = [s for s in quick if (counts[s.number] < min(wanted.stop, s.rows)).any()]
        if short:
            gone = {space.number for space in short}
            found = [row for row in found if row[3] not in gone]
            found += self._fetched(widths, [], short, wanted.stop, condition)
        return self._ranked(found, unit, wanted)

    def _fetched(
        self, widths: Mapping[int, Floats], quick: Sequence[Known], full: Sequence[Known], k: int, condition: str | None
    ) -> list[Found]:
        """Return candidates of all queries: `quick` spaces by their index, `full` ones by comparing every row."""
        if not (quick or full):
            return []
        text, values = _statement(widths, quick, full, k + SLACK, condition)
        values["sequence"] = self.sequence

        def run(_: int, connection: Connection) -> list[Found]:
            with connection.cursor(binary=True) as cursor:
                return cursor.execute(text.encode(), values).fetchall()

        return [row for rows in self.shards.each(run) for row in rows]

    def _ranked(self, found: list[Found], unit: Doubles, wanted: slice) -> list[list[Hit]]:
        """Return hits with exact scores, in the order of scores and ages."""
        names = {space.number: (name, space.dim) for name, space in self.known.items()}
        query = np.array([row[0] for row in found], np.int64)
        seq = np.array([row[2] for row in found], np.int64)
        width = np.array([names[row[3]][1] for row in found], np.int64)
        score = np.zeros(len(found), np.float32)
        for dim in np.unique(width).tolist():
            mine = np.flatnonzero(width == dim)
            score[mine] = _scores(np.stack([found[i][5] for i in mine.tolist()]), unit[query[mine]])
        order = np.lexsort((seq, -score, query))
        edges = np.searchsorted(query[order], np.arange(len(unit) + 1)).tolist()
        chosen = [order[a:b][wanted].tolist() for a, b in pairwise(edges)]
        said = score.tolist()
        return [
            [Hit(found[i][1], said[i], names[found[i][3]][0], json.loads(found[i][4])) for i in some] for some in chosen
        ]


def _statement(
    widths: Mapping[int, Floats], quick: Sequence[Known], full: Sequence[Known], limit: int, condition: str | None
) -> tuple[str, dict[str, Any]]:
    """Return one statement for all queries and its values: the union of the best rows of each space.

    An index answers only its own expression: comparing `vec` without its width is always exact.
    """
    values: dict[str, Any] = {f"w{dim}": list(at) for dim, at in widths.items()}
    rest = "" if condition is None else " AND filters @> %(filters)s::jsonb"
    if condition is not None:
        values["filters"] = condition
    arms = [
        f"(SELECT {FOUND} FROM items WHERE space = {s.number} AND seq <= %(sequence)s{rest} "
        f"ORDER BY vec::vector({s.dim}) <=> q.w{s.dim}::vector({s.dim}) LIMIT {limit})"
        for s in quick
    ]
    for dim in dict.fromkeys(space.dim for space in (*full, *quick)):
        everything = [s.number for s in (*full, *quick) if s.dim == dim]
        compared = [s.number for s in full if s.dim == dim]
        nearest = f"{rest} ORDER BY vec <=> q.w{dim}, seq LIMIT {limit})"
        if compared:
            arms.append(f"(SELECT {FOUND} FROM items WHERE {_among(compared)} AND seq <= %(sequence)s{nearest}")
        arms.append(
            f"(SELECT {FOUND} FROM history WHERE {_among(everything)} AND ended > %(sequence)s "
            f"AND seq <= %(sequence)s{nearest}"
        )
    columns = ", ".join(f"w{dim}" for dim in widths)
    arrays = ", ".join(f"%(w{dim})b" for dim in widths)
    given = f"unnest({arrays}) WITH ORDINALITY AS q ({columns}, n)"
    return f"SELECT q.n::int - 1, r.* FROM {given} CROSS JOIN LATERAL ({' UNION ALL '.join(arms)}) AS r", values


def _among(numbers: Sequence[int]) -> str:
    return f"space IN ({', '.join(map(str, numbers))})"


def _scores(vectors: Floats, unit: Doubles) -> Floats:
    """Return scores `[M]` of rows `[M, D]`, each against its own unit query, as every other backend computes them."""
    rows = inputs.unit(vectors).astype(np.float32).astype(np.float64)
    shared = min(rows.shape[1], unit.shape[1])
    rows, own = (np.ascontiguousarray(side[:, :shared]) for side in (rows, unit))
    score = np.einsum("nd,nd->n", rows, own)
    if shared < unit.shape[1]:  # the cosine with the query's first coordinates
        lengths = np.sqrt(np.einsum("nd,nd->n", own, own))
        score = score / np.where(lengths == 0, 1, lengths)
    rounded: Floats = score.clip(-1, 1).astype(np.float32)
    return rounded


def _at_width(unit: Doubles, width: int) -> Floats:
    """Return `[N, D]` as float32 `[N, width]`: cut, or padded with zeros."""
    fitted = np.zeros((len(unit), width), np.float32)
    shared = min(width, unit.shape[1])
    fitted[:, :shared] = unit[:, :shared]
    return fitted


def _one(connection: Connection, query: str) -> Any:  # noqa: ANN401 - of several types
    (value,) = connection.execute(query.encode()).fetchone()  # type: ignore[misc]
    return value
