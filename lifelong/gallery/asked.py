"""What one search asks one part for: its rows of one width, or those of all widths that share an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, final

import numpy as np

from lifelong.gallery import indexes
from lifelong.gallery.indexes import LEAST, Integers, Mask, error, kth
from lifelong.gallery.inputs import Doubles, Floats
from lifelong.gallery.parts import FURTHER, RARE, Part, Top

Band = tuple[int, Mask | None]  # a width, and the rows that have it
Ranked = tuple[Integers, Floats]  # rows `[M, k]` and their exact scores, best first
OVER = 2  # times as many rows as usual: scales fit the average query, not each


@final
@dataclass(frozen=True, slots=True)
class Bands:
    """The widths of rows of a part, W of them.

    Args:
        each: Each with its rows, narrow ones first.
        widths: The same without the rows, `[W]`.
        places: Of each space, by its number: which of them it has.
        scales: What the part's index has rows of each width multiplied by, `[W]`.
    """

    each: list[Band]
    widths: Integers
    places: Integers
    scales: Doubles

    @classmethod
    def of(cls, each: list[Band], known: Integers, scales: Mapping[int, float]) -> Self:
        """Return them by the width of each space, by its number; what has no scale is as it was."""
        widths = np.array([width for width, _ in each])
        places = np.searchsorted(widths, known).clip(max=len(each) - 1)
        return cls(each, widths, places, np.array([scales.get(width, 1.0) for width, _ in each]))


class Asked(Protocol):
    """A part, and M queries in the form that suits its rows."""

    @property
    def part(self) -> Part:
        """Return the part."""

    @property
    def stretch(self) -> float:
        """Return by how much errors of float32 products may have grown in the scores of `top`, >= 1."""

    def ranked(self, k: int, *, exact: bool) -> Ranked | None:
        """Return the `k` best rows of each query if one look is enough to know them, otherwise None."""

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
        if compared == unit.shape[1] == part.width:
            return cls(part, mask, unit, np.ones(len(unit)), unit.astype(np.float32))
        own, lengths = unit[:, :compared], np.ones(len(unit))
        if compared < unit.shape[1]:
            lengths = np.sqrt(np.einsum("md,md->m", own, own))
            lengths[lengths == 0] = 1
        fitted = np.zeros((len(unit), part.width), np.float32)
        fitted[:, :compared] = own / lengths[:, None]
        return cls(part, mask, own, lengths, fitted)

    def ranked(self, k: int, *, exact: bool) -> Ranked | None:
        """Return the `k` best rows of each query if one look is enough to know them, otherwise None."""
        floor = None
        rows = None if exact else self.part.near(self.fitted, k, self.mask)
        if rows is None:
            scores, rows, floor = self.part.top(self.fitted, k, self.mask, exact=True)
            if rows.shape[1] < k or scores.min(initial=0) < LEAST:
                return None
        if min(rows[:, -1].tolist(), default=0) < 0:
            return None
        score = self.part.exact(rows, self.unit[:, None], self.lengths[:, None])
        rows, score = _best_first(rows, score, k)
        if floor is not None and (floor >= score[:, -1] - 2 * error(self.part.width)).any():
            return None  # a row that was left out may belong here
        return rows, score

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
        bands: Their widths, 2 or more.
        lengths: Of the queries' first coordinates, for each width, `[M, W]`, above 0.
    """

    part: Part
    mask: Mask | None
    unit: Doubles
    bands: Bands
    lengths: Doubles

    @classmethod
    def of(cls, part: Part, mask: Mask | None, unit: Doubles, bands: Bands) -> Self:
        """Return what unit queries `[M, Q]` ask for."""
        lengths = np.sqrt((unit * unit).cumsum(axis=1)[:, bands.widths - 1])
        lengths[lengths == 0] = 1
        return cls(part, mask, unit, bands, lengths)

    @property
    def stretch(self) -> float:
        """Return by how much errors of float32 products may have grown: products are divided by lengths of slices."""
        return float((1 / self.lengths).max())

    def ranked(self, k: int, *, exact: bool) -> Ranked | None:
        """Return the `k` best rows of each query if one look is enough to know them, otherwise None."""
        rows = None if exact else self._near(k)
        if rows is None or min(rows[:, -1].tolist(), default=0) < 0:
            return None
        places, lengths = self._placed(rows)
        score = self.part.exact(rows, self.unit[:, None], lengths)
        bound = self._bound(score * lengths, places)
        rows, score = _best_first(rows, score, k)
        return None if (score[:, -1] < bound).any() else (rows, score)

    def top(self, k: int, *, exact: bool) -> Top:
        """Return the best allowed rows of each query; see `Part.top`."""
        rows = None if exact else self._near(k)
        if rows is None:
            return self._apart(np.arange(len(self.unit)), k, exact=exact)
        queries = self.unit[:, : self.part.width].astype(np.float32)
        places, lengths = self._placed(rows)
        products = np.einsum("mkd,md->mk", self.part.vectors.take(rows, axis=0), queries)
        products[rows < 0] = -np.inf  # the lists held no more
        scores = (products / lengths).astype(np.float32)
        short = np.flatnonzero((kth(scores, k) < self._bound(products, places)) | (rows[:, :k].min(axis=1) < 0))
        found = Top(scores, rows, np.full(len(rows), -np.inf, np.float32))
        return self._mended(found, short, self._apart(short, k, exact=False)) if len(short) else found

    def above(self, query: int, score: float) -> Integers:
        """Return all allowed rows whose float32 score with one of the queries is at least `score`."""
        return np.concatenate([one.above(0, score) for one in self._each(np.array([query]))])

    def exact(self, rows: Integers, queries: Integers) -> Floats:
        """Return the scores of row `rows[i]` against query `queries[i]`; what a row lacks is zero in it."""
        lengths = self.lengths[queries, self.bands.places[self.part.codes[rows]]]
        return self.part.exact(rows, self.unit[queries], lengths)

    def _near(self, k: int) -> Integers | None:
        """Return the rows that the index finds, the best of all widths; None where it is not to be asked."""
        left, quick = self.part.count(self.mask), self.part.quick
        if quick is None or k * RARE > left:
            return None
        chosen = None if self.mask is None else indexes.selector(self.mask)
        queries = self.unit[:, : self.part.width].astype(np.float32)
        return quick.search(queries, OVER * k, chosen, FURTHER if left * RARE < len(self.part) else 1)

    def _placed(self, rows: Integers) -> tuple[Integers, Doubles]:
        """Return which width each of `rows` `[M, F]` has, and the lengths of so many coordinates of its query."""
        places = self.bands.places.take(self.part.codes.take(rows))
        return places, self.lengths[np.arange(len(rows))[:, None], places]

    def _bound(self, products: Floats | Doubles, places: Integers) -> Doubles:
        """Return how much at most rows score `[M]` that were not found, by those `[M, F]` that were."""
        last = (products * self.bands.scales.take(places)).min(axis=1)
        bound: Doubles = (last[:, None] / (self.bands.scales * self.lengths)).max(axis=1)
        return bound

    def _each(self, queries: Integers) -> list[OneWidth]:
        return [OneWidth.of(self.part, rows, self.unit[queries], width) for width, rows in self.bands.each]

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


def _best_first(rows: Integers, score: Floats, k: int) -> Ranked:
    """Return the `k` best of a part's `rows` `[M, F]`, and their scores; the older of two rows has the lower number."""
    order = np.lexsort((rows, -score))[:, :k]
    order = order + np.arange(0, rows.size, rows.shape[1])[:, None]
    return rows.take(order), score.take(order)
