"""All rows of a gallery in memory: the writer's `Memory`, and the `FrozenView` of it that readers search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np

from lifelong.errors import SpaceError
from lifelong.gallery import inputs
from lifelong.gallery.base import Hit, Stats, Vectors, Where
from lifelong.gallery.inputs import Condition, Doubles, Floats
from lifelong.gallery.lane import Lane
from lifelong.gallery.parts import Integers, Mask, Part
from lifelong.types import Space

BLOCK = 256  # queries scored together, fewer where each wants so many hits that they would take more than
PAIRS = 2**22  # pairs of query and row in memory
SLACK = 8  # rows fetched beyond k: float32 rounding may misplace a few around the k-th
ROUNDING = 2.0**-24
Searched = tuple[Part, Mask | None, Floats]  # a part, its allowed rows, the queries at its width


@final
@dataclass(frozen=True, slots=True)
class FrozenView:
    """A gallery as it was at one moment.

    Args:
        parts: All rows.
        names: Id of each space, by its number.
        widths: Width of each space that was ever written.
        rows: Living rows of each space that has any.
        sequence: Number of the newest change in it.
    """

    parts: tuple[Part, ...]
    names: tuple[str, ...]
    widths: Mapping[str, int]
    rows: Mapping[str, int]
    sequence: int

    @property
    def spaces(self) -> frozenset[str]:
        """Return the ids of the spaces that have rows in it."""
        return frozenset(self.rows)

    def stats(self) -> Stats:
        """Return how much it holds."""
        held = sum(part.vectors.nbytes for part in self.parts)
        return Stats(sum(self.rows.values()), dict(self.rows), self.sequence, held)

    def search(self, queries: Vectors, space: Space, k: int = 10, where: Where | None = None) -> list[list[Hit]]:
        """Return up to `k` hits of each query, best first; see `Gallery.search`."""
        if self.widths.get(inputs.checked(space).id, space.dim) != space.dim:
            raise SpaceError(
                f"space {space.id!r} is stored with dim={self.widths[space.id]}, got dim={space.dim}; "
                "give another model another space id"
            )
        unit = inputs.unit(inputs.vectors(queries, space, "queries"))
        k, condition = inputs.count(k), inputs.condition(where)
        parts = self._searched(space.reads, condition)
        hits: list[list[Hit]] = []
        block = min(BLOCK, PAIRS // min(k, PAIRS, 1 + sum(self.rows.values())))
        for start in range(0, len(unit), block):
            hits += self._best(unit[start : start + block], k, parts)
        return hits

    def _searched(self, reads: frozenset[str], condition: Condition) -> list[tuple[Part, Mask | None]]:
        readable = np.array([name in reads for name in self.names], bool)
        parts = [(part, part.allowed(readable, condition)) for part in self.parts]
        return [(part, mask) for part, mask in parts if mask is None or mask.any()]

    def _best(self, unit: Doubles, k: int, parts: list[tuple[Part, Mask | None]]) -> list[list[Hit]]:
        """Return the hits of unit queries `[N, D]`: scores by FAISS choose candidates, exact ones rank them."""
        if not parts:
            return [[] for _ in unit]
        searched = [(part, mask, _at_width(unit, part.width)) for part, mask in parts]
        found = _candidates(searched, k)
        query, row = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        which = np.repeat(np.arange(len(found)), [len(rows) for _, rows in found])
        score = np.concatenate([part.exact(r, unit[q]) for (part, *_), (q, r) in zip(searched, found, strict=True)])
        seq = np.concatenate([part.seqs[r] for (part, *_), (_, r) in zip(searched, found, strict=True)])
        order = np.lexsort((seq, -score, query))
        edges = np.searchsorted(query[order], np.arange(len(unit) + 1))
        chosen = [order[a : min(a + k, b)] for a, b in pairwise(edges)]
        return [[self._hit(searched[which[i]][0], int(row[i]), float(score[i])) for i in best] for best in chosen]

    def _hit(self, part: Part, row: int, score: float) -> Hit:
        return Hit(part.ids[row], score, self.names[part.codes[row]], part.payload(row))


def _candidates(searched: list[Searched], k: int) -> list[tuple[Integers, Integers]]:
    """Return for each part pairs (query, row) that hold every row which may be among the `k` best, ties included.

    A float32 product is off by at most `error`. So the k-th best row scores at least `kth - error` exactly, and a
    row that beats or equals it shows at least `kth - 2 * error`. Where a part's list ends above that, it may have
    left such a row out (equal vectors, mostly), and the part is scanned for all of them.
    """
    tops = [part.top(queries, k + SLACK, mask) for part, mask, queries in searched]
    error = (max(part.width for part, *_ in searched) + 8) * ROUNDING
    cut = _kth(np.concatenate([top.scores for top in tops], axis=1), k) - 2 * error
    found = []
    for (part, mask, queries), top in zip(searched, tops, strict=True):
        short = (top.floor >= cut) & np.isfinite(top.floor)
        query, column = np.nonzero((top.scores >= cut[:, None]) & np.isfinite(top.scores) & ~short[:, None])
        pairs = [(query, top.rows[query, column])]
        for q in np.flatnonzero(short):
            more = part.above(queries[q], float(cut[q]), mask)
            pairs.append((np.full(len(more), q), more))
        found.append((np.concatenate([q for q, _ in pairs]), np.concatenate([r for _, r in pairs])))
    return found


def _kth(scores: Floats, k: int) -> Doubles:
    """Return the k-th largest score of each row of `[N, F]`, -inf if there are fewer."""
    if scores.shape[1] < k:
        return np.full(len(scores), -np.inf)
    return np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k].astype(np.float64)


def _at_width(unit: Doubles, width: int) -> Floats:
    """Return `[N, D]` as float32 `[N, width]`: cut, or padded with zeros."""
    fitted = np.zeros((len(unit), width), np.float32)
    shared = min(width, unit.shape[1])
    fitted[:, :shared] = unit[:, :shared]
    return fitted


@final
class Memory:
    """Every living row of a gallery; for one thread at a time, which hands out views.

    Args:
        seal: Rows that gather before they become a FAISS part.

    `sequence` is the newest change in it, `widths` the width of each space that was ever written.
    """

    def __init__(self, seal: int) -> None:
        self.sequence = 0
        self._seal = seal
        self._lanes: dict[int, Lane] = {}
        self._seqs: dict[str, int] = {}
        self._codes: dict[str, int] = {}
        self.widths: dict[str, int] = {}
        self._rows: Counter[int] = Counter()

    @property
    def width(self) -> int:
        """Return the largest width of all rows so far, 0 at first."""
        return max(self._lanes, default=0)

    def known(self, ids: Sequence[str]) -> list[str]:
        """Return those of `ids` that are there."""
        return [name for name in ids if name in self._seqs]

    def put(self, ids: Sequence[str], seqs: Sequence[int], space: str, vectors: Floats, texts: Sequence[str]) -> None:
        """Take rows `[N, D]` of one space; `seqs` rise and are newer than everything before."""
        self._bury(ids)
        width = vectors.shape[1]
        code = self._codes.setdefault(space, len(self._codes))
        self.widths[space] = width
        if width not in self._lanes:
            self._lanes[width] = Lane(width, self._seal)
        self._lanes[width].append(inputs.unit(vectors), np.array(seqs, np.int64), code, ids, texts)
        self._seqs.update(zip(ids, seqs, strict=True))
        self._rows[code] += len(ids)
        self.sequence = seqs[-1]

    def drop(self, ids: Sequence[str], seqs: Sequence[int]) -> None:
        """Forget rows, those that are there, by changes `seqs`."""
        self._bury(ids)
        for name in ids:
            self._seqs.pop(name, None)
        self.sequence = seqs[-1]

    def view(self) -> FrozenView:
        """Return everything as it is now."""
        parts = tuple(part for lane in self._lanes.values() for part in lane.parts())
        names = tuple(self._codes)
        rows = {names[code]: rows for code, rows in self._rows.items() if rows}
        return FrozenView(parts, names, dict(self.widths), rows, self.sequence)

    def _bury(self, ids: Sequence[str]) -> None:
        dead: Any = np.array([self._seqs[name] for name in ids if name in self._seqs], np.int64)
        if len(dead):
            for lane in self._lanes.values():
                self._rows.subtract(lane.bury(dead))
