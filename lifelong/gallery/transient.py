"""A gallery that ends with its process: for tests, notebooks, and what can be written again."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from itertools import islice
from typing import Self, final

import numpy as np

from lifelong.errors import SpaceError, Unavailable
from lifelong.gallery import inputs
from lifelong.gallery.base import Current, Payload, Row, Vectors
from lifelong.gallery.inputs import Floats
from lifelong.gallery.memory import Memory
from lifelong.gallery.view import FrozenView
from lifelong.types import Space

SEAL = 4096
Held = tuple[int, str, Floats, str]  # sequence number, space, vector, payload


@final
class MemoryGallery(Current):
    """A `Gallery` without files; every search is exact, every method may be called from any thread.

    Args:
        seal: Rows that gather in a buffer before they become a part.
    """

    def __init__(self, *, seal: int = SEAL) -> None:
        self._mutex = threading.RLock()  # one change at a time; searches do not take it
        self._memory = Memory(seal)
        self._rows: dict[str, Held] = {}  # oldest first
        self._closed = False
        self._view = self._memory.view()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self, ids: Sequence[str | int], vectors: Vectors, space: Space, payload: Sequence[Payload] | None = None
    ) -> int:
        """Store rows, all or none; see `Gallery.add`.

        Raises:
            DataError: Wrong ids, vectors or payload.
            SpaceError: The space is known with another width or family.
        """
        names, array, texts = inputs.added(ids, vectors, space, payload)
        with self._mutex:
            self._open()
            known = self._memory.widths.get(space.id, space.dim), self._memory.families.get(space.id, space.family)
            if known != (space.dim, space.family):
                raise SpaceError(
                    f"space {space.id!r} is stored with dim={known[0]} and family={known[1]!r}, "
                    f"got dim={space.dim} and family={space.family!r}; give another model another space id"
                )
            if names:
                seqs = range(self._memory.sequence + 1, self._memory.sequence + 1 + len(names))
                old = [self._rows.pop(name)[0] for name in names if name in self._rows]
                self._memory.put(names, seqs, space.id, array, texts, np.array(old, np.int64))
                self._memory.families[space.id] = space.family
                own = array.copy()
                self._rows |= {n: (seqs[i], space.id, own[i], texts[i]) for i, n in enumerate(names)}
                self._view = self._memory.view()
            return self._memory.sequence

    def renew(self, rows: Sequence[Row], vectors: Vectors, space: Space) -> int:
        """Store new vectors for those of `rows` that are still as they were read; see `Gallery.renew`."""
        names, array, _ = inputs.renewed(rows, vectors, space)
        with self._mutex:
            self._open()
            same = [i for i, row in enumerate(rows) if row.id in self._rows and self._rows[row.id][0] == row.seq]
            self.add([names[i] for i in same], array[same], space, [rows[i].payload for i in same])
            return len(same)

    def remove(self, ids: Sequence[str | int]) -> int:
        """Remove rows and return how many of them were there."""
        wanted = dict.fromkeys(inputs.names(ids))
        with self._mutex:
            self._open()
            old = [self._rows.pop(name)[0] for name in wanted if name in self._rows]
            self._memory.bury(np.array(old, np.int64), self._memory.sequence + len(old))
            self._view = self._memory.view()
            return len(old)

    def get(self, ids: Sequence[str | int]) -> list[Row | None]:
        """Return the row of each id, None where there is none."""
        names = inputs.names(ids)
        with self._mutex:
            self._open()
            return [_row(name, self._rows[name]) if name in self._rows else None for name in names]

    def rows(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """Return up to `limit` rows whose sequence number is above `after`, oldest first."""
        size = inputs.count(limit, "limit")
        with self._mutex:
            self._open()
            later = ((name, held) for name, held in self._rows.items() if held[0] > after)
            return [_row(name, held) for name, held in islice(later, size)]

    def view(self) -> FrozenView:
        """Return the gallery as it is now."""
        self._open()
        return self._view

    def commit(self) -> int:
        """Return the newest sequence number; nothing here outlives the process."""
        return self.view().sequence

    def refresh(self) -> int:
        """Return the newest sequence number; nobody else writes here."""
        return self.view().sequence

    def close(self) -> None:
        """Forget the rows; views stay usable, and closing twice is fine."""
        with self._mutex:
            self._closed = True
            self._rows, self._memory = {}, Memory(1)

    def _open(self) -> None:
        if self._closed:
            raise Unavailable("this gallery is closed, and what it held is gone; make a new one")


def _row(name: str, held: Held) -> Row:
    seq, space, vector, text = held
    return Row(name, seq, space, vector.copy(), json.loads(text))
