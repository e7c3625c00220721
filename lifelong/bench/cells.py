"""Tables of accuracies, read and checked: what every metric asks of its input before it computes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lifelong.errors import DataError

Floats: TypeAlias = NDArray[np.float64]


def square(R: object, least: int = 1) -> Floats:
    """Return R as a float64 array `[T, T]` with T >= `least`.

    Raises:
        DataError: It is not square, too small, or holds something else than shares in 0..1 and NaN.
    """
    found = table(R)
    if found.shape[0] != found.shape[1]:
        raise DataError(f"need the accuracy matrix [T, T], got {list(found.shape)}; give one row per experience")
    if len(found) < least:
        raise DataError(f"this metric compares experiences and needs at least {least}, got {len(found)}")
    return found


def table(A: object) -> Floats:
    """Return A as a float64 array `[S, T]`, None as NaN.

    Raises:
        DataError: It has another shape, or holds something else than shares in 0..1 and NaN.
    """
    return _shares(A, "a table [rows, experiences]", lambda found: found.ndim == 2 and found.size > 0)


def row(b: object, size: int) -> Floats:
    """Return the accuracies b of an untrained model as a float64 array `[size]`, None as NaN.

    Raises:
        DataError: It has another shape, or holds something else than shares in 0..1 and NaN.
    """
    return _shares(b, f"a row [{size}] for the untrained model", lambda found: found.shape == (size,))


def require(name: str, A: Floats, cells: Iterable[tuple[int, int]], what: str = "R") -> None:
    """Check that the metric `name` finds a number in every one of `cells`.

    Raises:
        DataError: One of them is NaN.
    """
    for i, j in cells:
        if np.isnan(A[i, j]):
            where = f"R[{i}][{j}]" if what == "R" else f"{what}[{j}]"
            raise DataError(f"{name} needs {where}, which was not measured (NaN); measure it or leave {name} out")


def _shares(values: object, what: str, fits: Callable[[Floats], bool]) -> Floats:
    try:
        found: Floats = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"accuracies must be {what} of numbers, got something else: {error}") from error
    if not fits(found):
        raise DataError(f"accuracies must be {what}, got shape {list(found.shape)}")
    wrong = found[(found < 0) | (found > 1)]
    if wrong.size:
        raise DataError(f"accuracies are shares in 0..1, got {wrong[0]:g}; divide percentages by 100")
    return found
