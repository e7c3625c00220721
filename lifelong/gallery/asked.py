"""What one search asks one part for: its rows of one width, or those of all widths that share an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, final

import numpy as np

from lifelong.gallery import indexes
from lifelong.gallery.indexes import Integers, Mask, kth
from lifelong.gallery.inputs import Doubles, Floats
from lifelong.gallery.parts import FURTHER, RARE, Part, Top

Band = tuple[int, Mask | None]  # a width, and the rows that have it
OVER = 2  # times as many rows as usual: scales fit the average query, not each


class Asked(Protocol):
    """A part, and M queries in the form that suits its rows."""

    @property
    def part(self) -> Part:
        """Return the part."""

    @property
    def stretch(self) -> float:
        """Return by how much errors of float32 products may have grown in the scores of `top`, >= 1."""

    def top(self, k: int, *, exact: bool) -> Top:
        """Return the best allowed rows of each query; see `Part.top`."""

    def above(self, query: int, score: float) -> Integers:
        """Return all allowed rows whose float32 score with one of the queries is at least `score`."""

    def exact(self, rows: Integers, queries: Integers) -> Floats:
        """Return the scores of row `rows[i]` against query `queries[i]`; see `Part.exact`."""


@final
@dataclass(frozen=True, slots=True)
class OneWidth:
    """Rows that are compared by the same number of coordinates.

    Args:
        part: Where they are.
        mask: Which of its rows; None for all.
        unit: The first coordinates of unit queries, `[M, d]`.
        lengths: Of those, `[M]`, above 0.
        fitted: The same at length 1, `[M, D]` with the width of the part.
    """

    part: Part
    mask: Mask | None
    unit: Doubles
    lengths: Doubles
    fitted: Floats
    stretch: float = 1.0

    @classmethod
    def of(cls, part: Part, mask: Mask | None, unit: Doubles, compared: int) -> Self:
        """Return what unit queries `[M, Q]` ask rows for that are compared by `compared` coordinates.

        A query that has nothing in them resembles no such row: it stays zero.
        """
        own, lengths = unit[:, :compared], np.ones(len(unit))
        if compared < unit.shape[1]:
            lengths = np.sqrt(np.einsum("md,md->m", own, own))
            lengths[lengths == 0] = 1
        fitted = np.zeros((len(unit), part.width), np.float32)
        fitted[:, :compared] = own / lengths[:, None]
        return cls(part, mask, own, lengths, fitted)

    def top(self, k: int, *, exact: bool) -> Top:
        """Return the best allowed rows of each query; see `Part.top`."""
        return self.part.top(self.fitted, k, self.mask, exact=exact)

    def above(self, query: int, score: float) -> Integers:
        """Return all allowed rows whose float32 score with one of the queries is at least `score`."""
        return self.part.above(self.fitted[query], score, self.mask)

    def exact(self, rows: Integers, queries: Integers) -> Floats:
        """Return the scores of row `rows[i]` against query `queries[i]`."""
        return self.part.exact(rows, self.unit[queries], self.lengths[queries])


@final
@dataclass(frozen=True, slots=True)
class AllWidths:
    """Rows of several widths under one index, none wider than the queries, found by one search of it.

    The index holds each row times the scale of its width, so that for an average query its order is that of the
    scores. Rows that it left out of its list are worth no more than its last one, whatever their width; where that is
    not enough to know the k best, each width is searched for itself.

    Args:
        part: Where they are; its index has scales.
        mask: Which of its rows; None for all.
        unit: Unit queries `[M, Q]`, Q no less than any width.
        bands: Each of W widths with its rows; W >= 2.
        places: Of each space, by its number: which width it has.
        lengths: Of the queries' first coordinates, for each width, `[M, W]`, above 0.
    """

    part: Part
    mask: Mask | None
    unit: Doubles
    bands: list[Band]
    places: Integers
    lengths: Doubles

    @classmethod
    def of(cls, part: Part, mask: Mask | None, unit: Doubles, bands: list[Band], widths: Integers) -> Self:
        """Return what unit queries `[M, Q]` ask for; `widths` is that of each space, by its number."""
        every = np.array([width for width, _ in bands])
        lengths = np.sqrt(np.cumsum(unit * unit, axis=1)[:, every - 1])
        lengths[lengths == 0] = 1
        places = np.searchsorted(every, widths).clip(max=len(bands) - 1)
        return cls(part, mask, unit, bands, places, lengths)

    @property
    def stretch(self) -> float:
        """Return by how much errors of float32 products may have grown: products are divided by lengths of slices."""
        return float((1 / self.lengths).max())

    def top(self, k: int, *, exact: bool) -> Top:
        """Return the best allowed rows of each query; see `Part.top`."""
        left, quick, whole = self.part.count(self.mask), self.part.quick, np.arange(len(self.unit))
        if exact or quick is None or k * RARE > left:
            return self._apart(whole, k, exact=exact)
        chosen = None if self.mask is None else indexes.selector(self.mask)
        queries = np.ascontiguousarray(self.unit[:, : self.part.width], np.float32)
        rows = quick.search(queries, OVER * k, chosen, FURTHER if left * RARE < len(self.part) else 1)
        scores, bound = self._scored(rows, np.einsum("mkd,md->mk", self.part.vectors[rows], queries), quick.scales)
        short = np.flatnonzero((kth(scores, k) < bound) | (rows[:, :k].min(axis=1) < 0))
        found = Top(scores, rows, np.full(len(rows), -np.inf, np.float32))
        return self._mended(found, short, self._apart(short, k, exact=False)) if len(short) else found

    def above(self, query: int, score: float) -> Integers:
        """Return all allowed rows whose float32 score with one of the queries is at least `score`."""
        return np.concatenate([one.above(0, score) for one in self._each(np.array([query]))])

    def exact(self, rows: Integers, queries: Integers) -> Floats:
        """Return the scores of row `rows[i]` against query `queries[i]`; what a row lacks is zero in it."""
        lengths = self.lengths[queries, self.places[self.part.codes[rows]]]
        return self.part.exact(rows, self.unit[queries], lengths)

    def _scored(self, rows: Integers, products: Floats, scales: dict[int, float]) -> tuple[Floats, Doubles]:
        """Return the scores of found rows `[M, F]`, and how much at most rows score that were not found `[M]`."""
        places, scale = self.places[self.part.codes[rows]], np.array([scales[width] for width, _ in self.bands])
        scores = np.where(rows < 0, -np.inf, products / np.take_along_axis(self.lengths, places, 1))
        last = np.where(rows < 0, -np.inf, products * scale[places]).min(axis=1)  # -inf: the lists held no more
        bound: Doubles = (last[:, None] / (scale * self.lengths)).max(axis=1)
        return scores.astype(np.float32), bound

    def _each(self, queries: Integers) -> list[OneWidth]:
        return [OneWidth.of(self.part, rows, self.unit[queries], width) for width, rows in self.bands]

    def _apart(self, queries: Integers, k: int, *, exact: bool) -> Top:
        tops = [one.top(k, exact=exact) for one in self._each(queries)]
        scores, rows = (np.concatenate(arrays, axis=1) for arrays in zip(*(top[:2] for top in tops), strict=True))
        return Top(scores, rows, np.max([top.floor for top in tops], axis=0))

    def _mended(self, found: Top, short: Integers, apart: Top) -> Top:
        """Return `found` with the answers for the queries `short` taken from `apart`."""
        shape = len(found.scores), apart.scores.shape[1]
        scores, rows = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
        scores[short], rows[short] = apart.scores, apart.rows
        found.scores[short] = -np.inf
        found.floor[short] = apart.floor
        return Top(np.hstack([found.scores, scores]), np.hstack([found.rows, rows]), found.floor)
