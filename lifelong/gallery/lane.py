"""The writer's side of all rows of one width: append to a buffer, seal it, merge small parts, sweep out dead rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from lifelong.gallery.base import Payload
from lifelong.gallery.indexes import Integers, Mask
from lifelong.gallery.inputs import Doubles, Floats
from lifelong.gallery.parts import Part

FAN = 4  # sealed parts of about one size that become one
TIERS = 3  # merges that a row goes through at most; later parts stay as they are


@final
class Buffer:
    """The newest rows; readers know `part()`, the writer fills what lies behind it.

    Args:
        width: D.
        size: Rows that fit in.
    """

    def __init__(self, width: int, size: int) -> None:
        self._vectors: Floats = np.empty((size, width), np.float32)
        self._seqs: Integers = np.empty(size, np.int64)
        self._codes: Integers = np.empty(size, np.int64)
        self._alive: Mask = np.ones(size, bool)
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._values: list[Payload | None] = []
        self._present: frozenset[int] = frozenset()
        self._length = self._dead = 0

    @property
    def room(self) -> int:
        """Return how many more rows fit in."""
        return len(self._seqs) - self._length

    def part(self) -> Part:
        """Return the rows as they are now."""
        n = self._length
        arrays = self._vectors[:n], self._seqs[:n], self._codes[:n], self._alive[:n]
        return Part(*arrays, self._ids, self._texts, self._present, self._dead, values=self._values)

    def append(self, vectors: Doubles, seqs: Integers, code: int, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Take up to `room` rows."""
        taken = slice(self._length, self._length + len(ids))
        self._vectors[taken], self._seqs[taken], self._codes[taken] = vectors, seqs, code
        self._present |= {code}
        self._ids += ids
        self._texts += texts
        self._values += [None] * len(texts)
        self._length = taken.stop

    def bury(self, rows: Integers) -> None:
        """Let `rows`, alive until now, die, but not for those who read already."""
        self._alive = self._alive.copy()
        self._alive[rows] = False
        self._dead += len(rows)


@final
class Lane:
    """Rows of width D.

    Args:
        width: D.
        seal: Rows that the buffer takes before it becomes a sealed part.
    """

    def __init__(self, width: int, seal: int) -> None:
        self._width, self._seal = width, seal
        self._sealed: list[Part] = []
        self._buffer = Buffer(width, seal)

    def parts(self) -> list[Part]:
        """Return all rows as they are now."""
        newest = self._buffer.part()
        return [*self._sealed, newest] if len(newest) else list(self._sealed)

    def sealed(self) -> list[Part]:
        """Return what is not in the buffer any more."""
        return list(self._sealed)

    def append(self, vectors: Doubles, seqs: Integers, code: int, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Take unit vectors `[N, D]` of one space, newer than everything here."""
        start = 0
        while start < len(ids):
            some = slice(start, start + self._buffer.room)
            self._buffer.append(vectors[some], seqs[some], code, ids[some], texts[some])
            start = some.stop
            if not self._buffer.room:
                self._close()

    def bury(self, seqs: Integers) -> list[int]:
        """Let those rows of `seqs`, alive until now, that are here die; return the codes of their spaces."""
        codes: list[int] = []
        for at, part in enumerate(self._sealed):
            if len(rows := part.find(seqs)):
                self._sealed[at] = part.without(rows)
                codes += part.codes[rows].tolist()
        if codes:
            self._sealed = [part for old in self._sealed for part in _swept(old)]
        newest = self._buffer.part()
        if len(rows := newest.find(seqs)):
            self._buffer.bury(rows)
            codes += newest.codes[rows].tolist()
            if len(rows) + newest.dead == len(newest):
                self._buffer = Buffer(self._width, self._seal)
        return codes

    def _close(self) -> None:
        self._sealed += _joined([self._buffer.part()])
        self._buffer = Buffer(self._width, self._seal)
        while len(self._sealed) >= FAN:
            last = self._sealed[-FAN:]
            tiers = {self._tier(part) for part in last}
            if len(tiers) > 1 or max(tiers) >= TIERS:
                break
            self._sealed[-FAN:] = _joined(last)

    def _tier(self, part: Part) -> int:
        return (len(part) // self._seal).bit_length() // 2  # 1 seal: 0, 4: 1, 16: 2, 64: 3


def _swept(part: Part) -> list[Part]:
    """Return `part`, rebuilt without dead rows if they are the larger half."""
    return [part] if part.dead * 2 <= len(part) else _joined([part])


def _joined(parts: list[Part]) -> list[Part]:
    """Return one sealed part of the living rows of `parts`, or none."""
    kept = [(part, np.flatnonzero(part.alive)) for part in parts]

    def arrays(name: str) -> Any:  # noqa: ANN401 - of three types
        return np.concatenate([getattr(part, name)[rows] for part, rows in kept])

    def lists(name: str) -> list[str]:
        return [getattr(part, name)[row] for part, rows in kept for row in rows.tolist()]

    codes = arrays("codes")
    if not len(codes):
        return []
    alive, present = np.ones(len(codes), bool), frozenset(np.unique(codes).tolist())
    return [Part(arrays("vectors"), arrays("seqs"), codes, alive, lists("ids"), lists("texts"), present)]
