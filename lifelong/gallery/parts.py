"""A part of a gallery as readers see it: rows in order of age, which never change.

The newest rows form a part that lies in a buffer: the writer appends to it, and a reader looks at no more than the
length that was published to it. Full buffers are sealed parts in memory. Most rows are in segments: parts in files,
see `segments.py`, of which large ones have an index that spares comparing with every row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, cast, final

import numpy as np

from lifelong.gallery import indexes
from lifelong.gallery.base import Hit, Payload
from lifelong.gallery.indexes import Integers, Mask, Quick
from lifelong.gallery.inputs import Condition, Doubles, Floats, Token, token
from lifelong.gallery.packed import Packed

GATHER = 5000  # with no more allowed rows than this, picking them out beats scanning past the others
SPARE = 1024  # with no more barred rows than this, asking for as many more beats a selector (which bars BLAS)
BATCH = 4  # from so many queries on BLAS beats FAISS's own loops, and numpy a selector
SLACK = 4  # rows fetched beyond k: float32 rounding may misplace a few around the k-th
CELLS = 2**22  # scores in memory when all rows are scanned
RARE = 10  # where fewer than 1 in so many rows are allowed, an index has to look further
FURTHER = 4  # times its usual effort
_hit = cast(Callable[[Iterable[object]], Hit], partial(tuple.__new__, Hit))  # without a call in Python for each


class Top(NamedTuple):
    """Candidates of N queries in one part.

    `scores` `[N, F]` are float32 products, -inf where there is no row; `rows` `[N, F]` are row numbers;
    no row that is missing here scores above `floor` `[N]`, as far as an index can tell.
    """

    scores: Floats
    rows: Integers
    floor: Floats


@final
@dataclass(frozen=True, slots=True)
class Part:
    """N rows, those of fewer than D coordinates ending in zeros.

    Args:
        vectors: `[N, D]` float32 of length 1.
        seqs: Sequence numbers `[N]`, rising.
        codes: Number of the space of each row, `[N]`.
        alive: Which rows `[N]` have not been removed or overwritten.
        ids: N ids; may be longer (the writer appends).
        texts: N payloads as JSON; may be longer.
        present: All that occurs in `codes`.
        dead: How many rows are not alive.
        quick: An index over the vectors; None compares with all of them.
        name: Of the segment; empty for a part in memory.
        values: N payloads as dicts, None until somebody asked; kept for the newest rows only. May be longer.
        columns: The rows of each value of a payload key, of keys that somebody asked for.
        spread: The rows of some of the spaces, where somebody asked for those and there are others.
    """

    vectors: Floats
    seqs: Integers
    codes: Integers
    alive: Mask
    ids: Sequence[str]
    texts: Sequence[str]
    present: frozenset[int]
    dead: int = 0
    quick: Quick | None = None
    name: str = ""
    values: list[Payload | None] | None = None
    columns: dict[str, dict[Token, Integers]] = field(default_factory=dict)
    spread: dict[frozenset[int], Mask] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seqs)

    @property
    def width(self) -> int:
        """Return D."""
        return int(self.vectors.shape[1])

    @property
    def bytes(self) -> int:
        """Return the memory that searches touch; files stay on disk as far as they do not."""
        return self.quick.bytes if self.quick else self.vectors.nbytes

    def find(self, seqs: Integers) -> Integers:
        """Return the row numbers of those sequence numbers that are here and alive."""
        if not len(self):
            return np.empty(0, np.int64)
        at = np.searchsorted(self.seqs, seqs).clip(max=len(self) - 1)
        rows: Integers = at[(self.seqs[at] == seqs) & self.alive[at]]
        return rows

    def without(self, rows: Integers) -> Part:
        """Return this part with `rows`, alive until now, dead; views that hold the old one keep it."""
        alive = self.alive.copy()
        alive[rows] = False
        return replace(self, alive=alive, dead=self.dead + len(rows))

    def payload(self, row: int) -> Payload:
        """Return a new dict of what was stored with a row."""
        text = self.texts[row]
        found: Payload = {} if text == "{}" else json.loads(text)
        return found

    def hits(self, rows: Integers, scores: Floats, names: Sequence[str]) -> list[Hit]:
        """Return what is handed out of rows `[N]` with their scores `[N]`; `names` are the spaces', by number."""
        if isinstance(self.ids, Packed):
            ids, texts = self.ids.both(rows)
        else:
            ids, texts = ([strings[row] for row in rows.tolist()] for strings in (self.ids, self.texts))
        spaces = [names[code] for code in self.codes.take(rows).tolist()]
        payloads = [{} if text == "{}" else json.loads(text) for text in texts]
        return list(map(_hit, zip(ids, scores.tolist(), spaces, payloads, strict=True)))

    def allowed(self, readable: frozenset[int], condition: Condition) -> Mask | None:
        """Return which rows `[N]` may be found, None for all: of spaces that are `readable`, that meet `condition`."""
        masks = [self.alive] if self.dead else []
        if (mine := self.among(readable)) is not None:
            masks.append(mine)
        masks += [self._matching(key, value) for key, value in condition]
        return np.logical_and.reduce(masks) if len(masks) > 1 else masks[0] if masks else None

    def among(self, codes: frozenset[int]) -> Mask | None:
        """Return which rows `[N]` are of the spaces of those numbers, None for all; kept."""
        here = self.present & codes
        if here == self.present:
            return None
        if here not in self.spread:
            self.spread[here] = np.isin(self.codes, list(here))
        return self.spread[here]

    def count(self, mask: Mask | None) -> int:
        """Return how many rows a mask allows."""
        return len(self) if mask is None else int(np.count_nonzero(mask))

    def near(self, queries: Floats, k: int, mask: Mask | None) -> Integers | None:
        """Return the rows that the index finds for queries `[M, D]`, `[M, WIDER * k]`, -1 where there are no more.

        None without an index, where there is a better way, and if fewer than `k` were found.
        """
        left = self.count(mask)
        if self.quick is None or k * RARE > left or (left < len(self) - SPARE and left <= GATHER):
            return None
        chosen = None if mask is None else indexes.selector(mask)
        rows = self.quick.search(queries, k, chosen, FURTHER if left * RARE < len(self) else 1)
        return rows if min(rows[:, k - 1].tolist(), default=0) >= 0 else None

    def top(self, queries: Floats, k: int, mask: Mask | None, *, exact: bool = False) -> Top:
        """Return the `k` best allowed rows, or a few more, for each query `[M, D]`; see `Top`."""
        left = self.count(mask)
        barred = len(self) - left
        if self.values is not None or (barred > SPARE and left <= GATHER):
            return self._gathered(queries, k + SLACK, mask)
        if not exact and (rows := self.near(queries, k, mask)) is not None:
            scores = np.einsum("mkd,md->mk", self.vectors.take(rows, axis=0), queries)
            return Top(np.where(rows < 0, np.float32(-np.inf), scores), rows, _floor(scores, complete=True))
        k += SLACK
        if mask is not None and barred > SPARE:
            if len(queries) >= BATCH:
                return self._scanned(queries, k, mask)
            scores, rows = indexes.scan(queries, self.vectors, min(k, left), indexes.selector(mask))
            return Top(scores, rows, _floor(scores, complete=k >= left))
        fetch = min(k + barred, len(self))
        scores, rows = indexes.scan(queries, self.vectors, fetch)
        floor = _floor(scores, complete=fetch == len(self))
        return Top(scores if mask is None else np.where(mask[rows], scores, -np.inf), rows, floor)

    def above(self, query: Floats, score: float, mask: Mask | None) -> Integers:
        """Return all allowed rows whose float32 product with `query` `[D]` is at least `score`."""
        found = self.vectors @ query >= score
        return np.flatnonzero(found if mask is None else found & mask)

    def exact(self, rows: Integers, queries: Doubles, lengths: Doubles) -> Floats:
        """Return the scores of `rows` against as many queries `[..., Q]` of these lengths, in float64 and then rounded.

        Equal vectors get equal scores wherever they lie: einsum adds each row up in the same order.
        """
        shared = min(self.width, queries.shape[-1])
        mine = self.vectors.take(rows, axis=0)[..., :shared].astype(np.float64)
        score = np.einsum("...d,...d->...", mine, np.ascontiguousarray(queries[..., :shared])) / lengths
        rounded: Floats = np.minimum(np.maximum(score, -1), 1).astype(np.float32)
        return rounded

    def column(self, key: str) -> dict[Token, Integers]:
        """Return the rows of each value of a payload key; kept, unless no row has the key."""
        column = self.columns.get(key)
        if column is None:
            lists: dict[Token, list[int]] = {}
            for row, text in enumerate(self.texts):
                payload = json.loads(text) if text != "{}" else {}
                if key in payload and (known := _token(payload[key])) is not None:
                    lists.setdefault(known, []).append(row)
            column = {known: np.array(rows, np.int64) for known, rows in lists.items()}
            if column:
                self.columns[key] = column
        return column

    def _gathered(self, queries: Floats, k: int, mask: Mask | None) -> Top:
        rows = np.arange(len(self)) if mask is None else np.flatnonzero(mask)
        top = _largest(queries @ (self.vectors if mask is None else self.vectors[rows]).T, k)
        return top._replace(rows=rows[top.rows])

    def _scanned(self, queries: Floats, k: int, mask: Mask) -> Top:
        step, barred, tops = max(1, CELLS // len(self)), ~mask, []
        for start in range(0, len(queries), step):
            scores = queries[start : start + step] @ self.vectors.T
            scores[:, barred] = -np.inf
            tops.append(_largest(scores, k))
        return Top(*map(np.concatenate, zip(*tops, strict=True)))

    def _matching(self, key: str, value: Token) -> Mask:
        found = np.zeros(len(self), bool)
        if self.values is not None:
            for row in range(len(self)):
                if (payload := self.values[row]) is None:
                    payload = self.values[row] = self.payload(row)
                found[row] = key in payload and _token(payload[key]) == value
        else:
            found[self.column(key).get(value, [])] = True
        return found


def _token(value: object) -> Token | None:
    """Return the token of a payload value; None for a list or dict, which nothing can be asked to equal."""
    return token(value) if value is None or isinstance(value, str | int | float) else None


def _largest(scores: Floats, k: int) -> Top:
    """Return the k largest of each row of `scores` `[N, F]`; `rows` are their columns."""
    width = scores.shape[1]
    if width <= k:
        return Top(scores, np.broadcast_to(np.arange(width), scores.shape), _floor(scores, complete=True))
    best = np.argpartition(scores, width - k, axis=1)[:, width - k :]
    scores = np.take_along_axis(scores, best, axis=1)
    return Top(scores, best, scores.min(axis=1))


def _floor(scores: Floats, *, complete: bool) -> Floats:
    """Return above which score FAISS, whose last column is its worst, left nothing out."""
    return np.full(len(scores), -np.inf, np.float32) if complete else scores[:, -1]
