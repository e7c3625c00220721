"""Ids and payloads of a segment: strings in one array of bytes, made into Python's only when they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from lifelong.gallery.indexes import Integers

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

    def pairs(self, rows: Integers) -> list[tuple[str, str]]:
        """Return both strings of each of `rows`; the second is a JSON object: of two bytes, it can only be empty."""
        (_, ends), at, text = self._arrays, 2 * rows, self._text
        a, b, c = ends[at].tolist(), ends[at + 1].tolist(), ends[at + 2].tolist()
        return [
            (text[i:j].tobytes().decode(), "{}" if k - j == 2 else text[j:k].tobytes().decode())
            for i, j, k in zip(a, b, c, strict=True)
        ]

    def packed(self) -> tuple[Bytes, Integers]:
        """Return bytes and ends, of both strings of each row."""
        return self._arrays
