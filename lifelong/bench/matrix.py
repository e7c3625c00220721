"""The accuracy matrix as it grows, row by row, while a stream is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from lifelong.bench import metrics
from lifelong.bench.cells import row
from lifelong.errors import DataError


@final
class AccuracyMatrix:
    """Accuracies R: `R[i][j]` on experience j after learning experience i; the whole matrix is always kept.

    Args:
        experiences: T, how many there will be; None if nobody knows: then each row may be longer than the last.
        base: Accuracies `[T]` of the untrained model, where they were measured.

    >>> matrix = AccuracyMatrix(2)
    >>> matrix.add([0.9, 0.1])
    >>> matrix.add([0.5, 0.7])
    >>> round(matrix.summary()["bwt_gem"], 6)
    -0.4
    """

    def __init__(self, experiences: int | None = None, base: Sequence[float] | None = None) -> None:
        if experiences is not None and experiences < 1:
            raise DataError(f"a stream has at least 1 experience, got {experiences}")
        self.experiences = experiences
        self.base = None if base is None else _plain(base)
        self._rows: list[list[float]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, accuracies: Sequence[float | None]) -> None:
        """Append what was measured after one more experience.

        Args:
            accuracies: Shares (0..1) on experiences 0, 1, ...; None or NaN, or ending early, is "not measured".

        Raises:
            DataError: There are more rows or columns than experiences, or a value is no share.
        """
        limit = self.experiences
        if limit is not None and (len(self._rows) >= limit or len(accuracies) > limit):
            raise DataError(
                f"the stream has {limit} experiences, of which {len(self)} have rows; got a row of {len(accuracies)}"
            )
        if not len(accuracies):
            raise DataError("a row needs at least one accuracy, got none; use None for what was not measured")
        self._rows.append(_plain(accuracies))

    @property
    def values(self) -> NDArray[np.float64]:
        """All that was measured, float64 `[rows, T]`, NaN elsewhere (T is the longest row's if unknown)."""
        width = self.experiences or max([len(self._rows), *map(len, self._rows)], default=0)
        filled = np.full((len(self._rows), width), np.nan)
        for i, found in enumerate(self._rows):
            filled[i, : len(found)] = found
        return filled

    @property
    def learned(self) -> NDArray[np.float64]:
        """The part `[n, n]` of the n experiences that were learned so far: what the metrics are functions of."""
        n = len(self._rows)
        return self.values[:, :n]

    def summary(self) -> dict[str, float]:
        """Return every metric that is defined for the experiences learned so far."""
        n = len(self._rows)
        return metrics.summary(self.learned, None if self.base is None else self.base[:n])

    def state(self) -> dict[str, Any]:
        """Return plain values; cells that were not measured are None, so JSON can hold them."""
        return {
            "experiences": self.experiences,
            "base": None if self.base is None else _nullable(self.base),
            "rows": [_nullable(found) for found in self._rows],
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> AccuracyMatrix:
        """Return the matrix that `state()` described, checked like one that grows.

        Raises:
            DataError: It is not such a state.
        """
        missing = {"experiences", "base", "rows"} ^ set(state)
        if missing:
            raise DataError(f"an accuracy matrix has experiences, base and rows, got {sorted(state)}")
        matrix = cls(state["experiences"], state["base"])
        for accuracies in state["rows"]:
            matrix.add(accuracies)
        return matrix


def _plain(values: Sequence[float | None]) -> list[float]:
    found: list[float] = row(values, len(values)).tolist()
    return found


def _nullable(values: Sequence[float]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values]
