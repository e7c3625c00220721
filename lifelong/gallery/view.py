"""What readers search: a gallery as it was at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import final

import numpy as np

from lifelong.errors import SpaceError
from lifelong.gallery import inputs
from lifelong.gallery.asked import AllWidths, Asked, Bands, OneWidth
from lifelong.gallery.base import Hit, Stats, Vectors, Where
from lifelong.gallery.indexes import LEAST, Integers, Mask, error, kth
from lifelong.gallery.inputs import Condition, Doubles, Floats
from lifelong.gallery.parts import Part
from lifelong.types import Space

BLOCK = 256  # queries scored together, fewer where each wants so many hits that they would take more than
PAIRS = 2**22  # pairs of query and row in memory
PLANS = 8  # of searches without a condition, kept with a view
Allowed = tuple[Part, Mask | None, Bands]  # a part, its rows, and those of each width
Pairs = tuple[Integers, Integers]  # queries, and rows of one part


@final
@dataclass(frozen=True, slots=True)
class FrozenView:
    """A gallery as it was at one moment.

    Args:
        parts: All rows.
        names: Id of each space, by its number.
        widths: Width of each space that was ever written.
        families: Family of each, likewise.
        rows: Living rows of each space that has any.
        sequence: Number of the newest change in it.
        plans: What `_searched` found for the spaces that somebody read.
    """

    parts: tuple[Part, ...]
    names: tuple[str, ...]
    widths: Mapping[str, int]
    families: Mapping[str, str]
    rows: Mapping[str, int]
    sequence: int
    plans: dict[frozenset[str], list[Allowed]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def spaces(self) -> frozenset[str]:
        """Return the ids of the spaces that have rows in it."""
        return frozenset(self.rows)

    def stats(self) -> Stats:
        """Return how much it holds."""
        held, named = sum(part.bytes for part in self.parts), sum(bool(part.name) for part in self.parts)
        return Stats(sum(self.rows.values()), dict(self.rows), self.sequence, held, named)

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
        if self.widths.get(inputs.checked(space).id, space.dim) != space.dim:
            raise SpaceError(
                f"space {space.id!r} is stored with dim={self.widths[space.id]}, got dim={space.dim}; "
                "give another model another space id"
            )
        inputs.readable(space, self.families)
        unit = inputs.queries(queries, space)
        wanted = inputs.page(k, offset)
        parts = self._plan(space, inputs.condition(where))
        hits: list[list[Hit]] = []
        block = min(BLOCK, PAIRS // min(wanted.stop, PAIRS, 1 + sum(self.rows.values())))
        for start in range(0, len(unit), block):
            hits += self._best(unit[start : start + block], wanted, parts, exact)
        return hits

    def _plan(self, space: Space, condition: Condition) -> list[Allowed]:
        """Return what is searched; kept for the next search if it has no condition."""
        plan = None if condition else self.plans.get(space.reads)
        if plan is None:
            plan = list(self._searched(space, condition))
            if not condition and len(self.plans) < PLANS:
                self.plans[space.reads] = plan
        return plan

    def _searched(self, space: Space, condition: Condition) -> Iterator[Allowed]:
        """Yield each part with the rows that may be found, and those of each width, which has queries of its own."""
        readable = frozenset(code for code, name in enumerate(self.names) if name in space.reads)
        widths = np.array([self.widths[name] for name in self.names], np.int64)
        for part in self.parts:
            mask, bands = part.allowed(readable, condition), []
            for width in sorted({int(widths[code]) for code in part.present & readable}):
                mine = part.among(frozenset(np.flatnonzero(widths == width).tolist()))
                both = mask if mine is None else mine if mask is None else mask & mine
                if both is None or both.any():
                    bands.append((width, both))
            if bands:
                yield part, mask, Bands.of(bands, widths, part.quick.scales if part.quick else {})

    def _asked(self, unit: Doubles, parts: list[Allowed]) -> Iterator[Asked]:
        """Yield what unit queries `[N, D]` ask the parts for."""
        for part, mask, bands in parts:
            if len(bands.each) > 1 and part.quick and part.quick.scales and bands.each[-1][0] <= unit.shape[1]:
                yield AllWidths.of(part, mask, unit, bands)
            else:
                yield from (OneWidth.of(part, rows, unit, min(width, unit.shape[1])) for width, rows in bands.each)

    def _best(self, unit: Doubles, wanted: slice, parts: list[Allowed], exact: bool) -> list[list[Hit]]:
        """Return the hits of unit queries `[N, D]`: rough scores choose candidates, exact ones rank them."""
        if not parts:
            return [[] for _ in unit]
        searched = list(self._asked(unit, parts))
        if len(searched) == 1 and (ranked := searched[0].ranked(wanted.stop, exact=exact)) is not None:
            return self._alone(searched[0].part, *ranked, wanted)
        found = _candidates(searched, wanted.stop, exact)
        query, row = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        which = np.repeat(np.arange(len(found)), [len(rows) for _, rows in found])
        score = np.concatenate([asked.exact(r, q) for asked, (q, r) in zip(searched, found, strict=True)])
        seq = np.concatenate([asked.part.seqs[r] for asked, (_, r) in zip(searched, found, strict=True)])
        order = np.lexsort((seq, -score, query))
        edges = np.searchsorted(query[order], np.arange(len(unit) + 1)).tolist()
        chosen = [order[a:b][wanted] for a, b in pairwise(edges)]
        best = np.concatenate(chosen)
        hits = self._hits(searched, which[best], row[best], score[best])
        return [list(islice(hits, len(some))) for some in chosen]

    def _alone(self, part: Part, rows: Integers, scores: Floats, wanted: slice) -> list[list[Hit]]:
        """Return the hits of a single part, of whose rows `[M, k]`, best first, the scores are known."""
        count = rows[:, wanted].shape[1]
        hits = part.hits(rows[:, wanted].reshape(-1), scores[:, wanted].reshape(-1), self.names)
        return [hits[at : at + count] for at in range(0, len(hits), count)]

    def _hits(self, searched: list[Asked], which: Integers, row: Integers, score: Floats) -> Iterator[Hit]:
        """Yield the hit of each row: part by part, for that is faster, but in the order of the rows."""
        if len(searched) == 1:
            return iter(searched[0].part.hits(row, score, self.names))
        placed = np.empty(len(row), object)
        for at, asked in enumerate(searched):
            mine = np.flatnonzero(which == at)
            placed[mine] = asked.part.hits(row[mine], score[mine], self.names)
        return iter(placed.tolist())


def _candidates(searched: list[Asked], k: int, exact: bool) -> list[Pairs]:
    """Return for each part pairs (query, row) that hold every row which may be among the `k` best, ties included.

    A float32 product is off by at most `error`. So the k-th best row scores at least `kth - error` exactly, and a
    row that beats or equals it shows at least `kth - 2 * error`. Where a part's list ends above that, it may have
    left such a row out (equal vectors, mostly), and the part is scanned for all of them. A part with an index that
    may miss a few says that its list is complete.
    """
    tops = [asked.top(k, exact=exact) for asked in searched]
    scores = np.concatenate([top.scores for top in tops], axis=1)
    off = max(error(asked.part.width) * asked.stretch for asked in searched)
    cut = np.maximum(kth(scores, k) - 2 * off, LEAST)
    column, query = np.nonzero((scores >= cut[:, None]).T)
    row = np.concatenate([top.rows for top in tops], axis=1)[query, column]
    ends = [0, *np.searchsorted(column, np.cumsum([top.rows.shape[1] for top in tops])).tolist()]
    found = [(query[start:end], row[start:end]) for start, end in pairwise(ends)]
    for at, short in enumerate(np.stack([top.floor for top in tops]) >= cut):
        if short.any():
            found[at] = _rescanned(searched[at], found[at], np.flatnonzero(short), cut)
    return found


def _rescanned(asked: Asked, found: Pairs, queries: Integers, cut: Doubles) -> Pairs:
    """Return candidates `found` in a part, those of `queries` replaced by all rows that score `cut` or more."""
    query, row = found
    kept = ~np.isin(query, queries)
    more = [asked.above(q, float(cut[q])) for q in queries.tolist()]
    again = np.repeat(queries, [len(rows) for rows in more])
    return np.concatenate([query[kept], again]), np.concatenate([row[kept], *more])
