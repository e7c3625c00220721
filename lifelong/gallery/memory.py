"""All rows of a gallery as its writer, or a follower, holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import final

import numpy as np

from lifelong.gallery import inputs
from lifelong.gallery.indexes import Integers, Mask
from lifelong.gallery.inputs import Floats
from lifelong.gallery.lane import Lane
from lifelong.gallery.parts import Part
from lifelong.gallery.view import FrozenView


@final
class Memory:
    """Every living row of a gallery; for one thread at a time, which hands out views.

    Args:
        seal: Rows that gather before they become a part of their own.

    `sequence` is the newest change in it, `widths` and `families` those of each space that was ever written, `segments`
    are the parts in files; all other rows are newer, or not yet in one.
    """

    def __init__(self, seal: int) -> None:
        self.sequence = 0
        self.widths: dict[str, int] = {}
        self.families: dict[str, str] = {}
        self.segments: list[Part] = []
        self.seal = seal
        self._lanes: dict[int, Lane] = {}
        self._codes: dict[str, int] = {}
        self._rows: Counter[int] = Counter()

    @property
    def width(self) -> int:
        """Return the largest width of all rows so far, 0 at first."""
        return max((*self._lanes, *(part.width for part in self.segments)), default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the id of each space, by its number."""
        return tuple(self._codes)

    def code(self, space: str) -> int:
        """Return the number of a space, in this process."""
        return self._codes.setdefault(space, len(self._codes))

    def tail(self, *, sealed: bool = False) -> list[Part]:
        """Return the parts that are in no segment, those in buffers only unless `sealed`."""
        return [part for lane in self._lanes.values() for part in (lane.sealed() if sealed else lane.parts())]

    def put(
        self,
        ids: Sequence[str],
        seqs: Sequence[int],
        space: str,
        vectors: Floats,
        texts: Sequence[str],
        dead: Integers | None = None,
    ) -> None:
        """Take rows `[N, D]` of one space in place of the `dead`; `seqs` rise and are newer than everything before."""
        if dead is not None:
            self.bury(dead)
        width, code = vectors.shape[1], self.code(space)
        self.widths[space] = width
        if width not in self._lanes:
            self._lanes[width] = Lane(width, self.seal)
        self._lanes[width].append(inputs.unit(vectors), np.array(seqs, np.int64), code, ids, texts)
        self._rows[code] += len(ids)
        self.sequence = seqs[-1]

    def bury(self, dead: Integers, sequence: int = 0) -> None:
        """Forget rows, those that are there, by their numbers; `sequence` is that of the last such change."""
        self.sequence = max(self.sequence, sequence)
        if not len(dead):
            return
        for lane in self._lanes.values():
            self._rows.subtract(lane.bury(dead))
        for at, part in enumerate(self.segments):
            if len(rows := part.find(dead)):
                self.segments[at] = part.without(rows)
                self._rows.subtract(part.codes[rows].tolist())

    def adopt(self, added: Iterable[Part], gone: Collection[str] = (), living: Integers | None = None) -> None:
        """Hold rows as segments from now on.

        Args:
            added: Segments; those of their rows that do not live are dead.
            gone: Names of segments that are not used any more; their living rows are in `added`.
            living: Numbers of all rows that live, rising; None for those that live here.
        """
        known = living is None
        if living is None:
            alive = [part.seqs[part.alive] for part in (*self.segments, *self.tail())]
            living = np.sort(np.concatenate([np.empty(0, np.int64), *alive]))
        self.segments = [part for part in self.segments if part.name not in gone]
        for part in added:
            mask = _among(part.seqs, living)
            self.segments.append(replace(part, alive=mask, dead=len(mask) - int(np.count_nonzero(mask))))
            for lane in self._lanes.values():
                lane.bury(part.seqs)
            if not known:
                self._rows.update(part.codes[mask].tolist())

    def covered(self) -> Integers:
        """Return the numbers of the living rows in segments, rising."""
        numbers = np.concatenate([np.empty(0, np.int64), *(part.seqs[part.alive] for part in self.segments)])
        numbers.sort()
        return numbers

    def view(self) -> FrozenView:
        """Return everything as it is now."""
        rows = {name: self._rows[code] for name, code in self._codes.items() if self._rows[code]}
        parts = (*(part for part in self.segments if part.dead < len(part)), *self.tail())
        return FrozenView(parts, self.names, dict(self.widths), dict(self.families), rows, self.sequence)


def _among(numbers: Integers, known: Integers) -> Mask:
    """Return which of `numbers` are among the `known`, which rise."""
    if not len(known):
        return np.zeros(len(numbers), bool)
    mask: Mask = known[np.searchsorted(known, numbers).clip(max=len(known) - 1)] == numbers
    return mask
