"""Ids and payloads of a segment: strings in one array of bytes, made into Python's only when they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from lifelong.gallery.indexes import Integers

THREE = np.array([[0], [1], [2]])  # where the first string begins, where it ends, and where the second does
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@final
class Packed(Sequence[str]):
    """Strings that lie between two ends in UTF-8 bytes.

    Args:
        text: The bytes.
        ends: `[2N + 1]`; two strings for each of N rows.
        which: 0 for the first of each two, 1 for the second.
    """

    def __init__(self, text: Bytes, ends: Integers, which: int) -> None:
        self._arrays, self._which = (text, ends), which
        self._text, self._ends = text.data, ends.data

    def __len__(self) -> int:
        return len(self._ends) // 2

    def __getitem__(self, row: Any) -> Any:  # noqa: ANN401 - a row, never a slice
        at = 2 * row + self._which
        return str(self._text[self._ends[at] : self._ends[at + 1]], "utf-8")

    def both(self, rows: Integers) -> tuple[list[str], list[str]]:
        """Return first and second strings of `rows`; the second are JSON objects: those of two bytes are empty."""
        text = self._text
        a, b, c = self._arrays[1].take(2 * rows + THREE).tolist()
        first = [text[i:j].tobytes().decode() for i, j in zip(a, b, strict=True)]
        return first, ["{}" if j - i == 2 else text[i:j].tobytes().decode() for i, j in zip(b, c, strict=True)]

    def packed(self) -> tuple[Bytes, Integers]:
        """Return bytes and ends, of both strings of each row."""
        return self._arrays
