"""The durable truth of an embedded gallery: one SQLite file, one writer, any number of followers.

Each change has a new, higher number (`seq`). A row is kept under the number of the change that wrote it; what an
overwrite or a removal ends is noted in `dead`. So whoever has seen everything up to `n` reads both tables above `n`,
whether it follows a writer or has just been started. The file also lists the segments, which can be thrown away.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from lifelong.errors import NotFound, SpaceError
from lifelong.gallery import layout
from lifelong.gallery.indexes import Integers
from lifelong.gallery.inputs import Floats
from lifelong.types import Space

PAGE = 4096  # rows read at once
COLUMNS = "seq, id, space, dim, vector, payload"
Record = tuple[int, str, str, int, bytes, str]
Facts = Mapping[str, Any]


class Catalog(NamedTuple):
    """Which segments there are.

    `generation` rises with every change of them; `reached` is the newest change that the last one knew; changes up to
    `purged` are forgotten in `dead`.
    """

    generation: int
    reached: int
    purged: int
    segments: dict[str, Facts]


class Change(NamedTuple):
    """What a write did: the number of its `first` change, and the rows (old numbers) that it ended."""

    first: int
    dead: Integers


@final
class Store:
    """Rows in a file.

    Args:
        path: The SQLite file; made if it is not there, unless `readonly`.
        readonly: Only read it; whoever writes is to hold the folder's lock.

    Raises:
        NotFound: There is nothing to read at `path`.
        ArtifactError: The file is damaged, not a gallery, or of a newer version.
        Unavailable: It cannot be read where it lies.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        if readonly and not path.is_file():
            raise NotFound(f"there is no gallery at {path}; let a writer create it first")
        self.path = path
        self._mutex = threading.RLock()  # one statement at a time; sqlite3 connections are not for sharing
        self._reading = threading.Lock()  # likewise, of the second connection: reading never waits for a commit
        with layout.errors(path):
            self._mode = layout.reading_mode(path) if readonly else "mode=rwc"
            self._base = layout.connected(path, self._mode)
        try:
            with layout.errors(path):
                layout.prepare(self._base, path, readonly=readonly)
                self._reader = layout.connected(path, self._mode if readonly else "mode=ro")
        except BaseException:
            self._base.close()
            raise

    def sequence(self) -> int:
        """Return the number of the newest change, 0 in an empty gallery."""
        query = "SELECT max((SELECT coalesce(max(seq), 0) FROM items), (SELECT coalesce(max(seq), 0) FROM dead))"
        return int(self._all(query)[0][0])

    def spaces(self) -> dict[str, tuple[int, str]]:
        """Return width and family of each space that was ever written, by id."""
        return {name: (dim, family) for name, dim, family in self._all("SELECT id, dim, family FROM spaces")}

    def catalog(self) -> Catalog:
        """Return which segments there are."""
        marks = dict(self._all("SELECT key, value FROM marks"))
        segments = {name: json.loads(facts) for name, facts in self._all("SELECT name, facts FROM segments")}
        return Catalog(marks["generation"], marks["reached"], marks["purged"], segments)

    def lists(self, segment: str) -> bool:
        """Return whether a segment is on the list by now, also during a `snapshot`."""
        return bool(self._read("SELECT 1 FROM segments WHERE name = ?", segment))

    def living(self) -> Integers:
        """Return the number of every row, rising; read from the index of ids, which is much smaller than the rows."""
        with self._mutex, layout.errors(self.path), closing(self._base.execute("SELECT seq FROM items")) as found:
            numbers = np.fromiter((row[0] for row in found), np.int64)
        numbers.sort()
        return numbers

    def ended(self, seq: int) -> Integers:
        """Return the rows that changes above `seq` ended."""
        return np.array([row for (row,) in self._all("SELECT row FROM dead WHERE seq > ?", seq)], np.int64)

    def since(self, seq: int) -> Iterator[list[Record]]:
        """Yield all rows above `seq` in pages, oldest first, as they were at one moment."""
        with self._mutex, layout.errors(self.path), closing(self._base.cursor()) as cursor:
            cursor.execute(f"SELECT {COLUMNS} FROM items WHERE seq > ? ORDER BY seq", (seq,))
            while page := cursor.fetchmany(PAGE):
                yield page

    def add(self, ids: Sequence[str], vectors: Floats, space: Space, texts: Sequence[str]) -> Change:
        """Write rows in one transaction."""
        blobs = (row.astype("<f4", copy=False).tobytes() for row in vectors)
        with self._transaction():
            self._register(space)
            first, old = self.sequence() + 1, self._written(ids)
            self._base.executemany(
                f"INSERT OR REPLACE INTO items ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                ((first + i, ids[i], space.id, space.dim, blob, texts[i]) for i, blob in enumerate(blobs)),
            )
            return self._bury((first + i, old[name]) for i, name in enumerate(ids) if name in old)._replace(first=first)

    def remove(self, ids: Sequence[str]) -> Change:
        """Remove those of `ids` that are there, in one transaction."""
        with self._transaction():
            first, old = self.sequence() + 1, self._written(ids)
            self._base.executemany("DELETE FROM items WHERE seq = ?", ((row,) for row in old.values()))
            return self._bury((first + i, row) for i, row in enumerate(old.values()))._replace(first=first)

    def publish(self, added: Mapping[str, Facts], gone: Iterable[str], reached: int) -> Catalog:
        """Change the list of segments, at the change `reached`.

        What died before the last time is forgotten: a follower that is so far behind starts anew.
        """
        with self._transaction():
            facts = ((name, json.dumps(one, sort_keys=True)) for name, one in added.items())
            self._base.executemany("INSERT INTO segments VALUES (?, ?)", facts)
            self._base.executemany("DELETE FROM segments WHERE name = ?", ((name,) for name in gone))
            old = self.catalog()
            # The newest stays: numbers must go on rising.
            self._base.execute("DELETE FROM dead WHERE seq <= ? AND seq < (SELECT max(seq) FROM dead)", (old.reached,))
            marks = {"generation": old.generation + 1, "reached": reached, "purged": old.reached}
            self._base.executemany("UPDATE marks SET value = ? WHERE key = ?", ((v, k) for k, v in marks.items()))
            return self.catalog()

    def get(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the rows of those `ids` that are there."""
        query = f"SELECT {COLUMNS} FROM items WHERE id IN "
        return {row[1]: row for some in _pages(ids) for row in self._read(query + _marks(some), *some)}

    def rows(self, after: int, limit: int) -> list[Record]:
        """Return up to `limit` rows above `after`, oldest first."""
        return self._read(f"SELECT {COLUMNS} FROM items WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read meanwhile (other than by `get` and `rows`) be of one moment."""
        with self._mutex, layout.errors(self.path):
            self._thaw()
            self._base.execute("BEGIN")
            try:
                yield
            finally:
                with suppress(sqlite3.Error):
                    self._base.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        with self._mutex, self._reading:
            self._reader.close()
            self._base.close()

    def _thaw(self) -> None:
        """Read a file that never changed as one that does, once somebody began to write it after all."""
        if "immutable" in self._mode and layout.waiting(self.path):
            with self._reading:
                self._mode = layout.reading_mode(self.path)
                self._reader.close()
                self._base.close()
                self._base, self._reader = (layout.connected(self.path, self._mode) for _ in range(2))

    def _register(self, space: Space) -> None:
        known = self._base.execute("SELECT dim, family FROM spaces WHERE id = ?", (space.id,)).fetchone()
        if known is None:
            self._base.execute("INSERT INTO spaces VALUES (?, ?, ?)", (space.id, space.dim, space.family))
        elif known != (space.dim, space.family):
            raise SpaceError(
                f"space {space.id!r} is stored with dim={known[0]} and family={known[1]!r}, "
                f"got dim={space.dim} and family={space.family!r}; give another model another space id"
            )

    def _written(self, ids: Sequence[str]) -> dict[str, int]:
        query = "SELECT id, seq FROM items WHERE id IN "
        return dict(row for some in _pages(ids) for row in self._base.execute(query + _marks(some), some))

    def _bury(self, ended: Iterable[tuple[int, int]]) -> Change:
        pairs = list(ended)
        self._base.executemany("INSERT INTO dead VALUES (?, ?)", pairs)
        return Change(0, np.array([row for _, row in pairs], np.int64))

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._mutex, layout.errors(self.path):
            return self._base.execute(query, values).fetchall()

    def _read(self, query: str, *values: object) -> list[Any]:
        if "immutable" in self._mode:
            with self._mutex:
                self._thaw()
        with self._reading, layout.errors(self.path):
            return self._reader.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._mutex, layout.errors(self.path):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                    self._base.execute("ROLLBACK")
                raise


def _pages(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))


def _marks(ids: Sequence[str]) -> str:
    return f"({','.join('?' * len(ids))})"
