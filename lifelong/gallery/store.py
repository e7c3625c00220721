"""The durable truth of an embedded gallery: one SQLite file, one writer, any number of followers.

Each change of an id gets a new, higher `seq`; a removal leaves a tombstone (a row without a vector). So whoever has
seen everything up to `n` reads `WHERE seq > n`, whether it follows a writer or has just been started.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, final

from lifelong.errors import ArtifactError, NotFound, SpaceError, Unavailable
from lifelong.gallery.inputs import Floats
from lifelong.types import Space

APPLICATION = 0x4C4C4741  # "LLGA" in the header of the file: this one is ours
VERSION = 1
PAGE = 4096  # rows read at once
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE items (
    seq INTEGER PRIMARY KEY,  -- ever rising; an overwrite or a removal moves the id to a new one
    id TEXT NOT NULL UNIQUE,
    space TEXT REFERENCES spaces (id),
    dim INTEGER,
    vector BLOB,              -- dim little-endian float32, as given; NULL: removed
    payload TEXT              -- a JSON object
);
CREATE TABLE spaces (id TEXT PRIMARY KEY, dim INTEGER NOT NULL, family TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""
COLUMNS = "seq, id, space, dim, vector, payload"
Record = tuple[int, str, str | None, int | None, bytes | None, str | None]


@final
class Store:
    """Rows in a file.

    Args:
        path: The SQLite file; made if it is not there, unless `readonly`.
        readonly: Only read it; whoever writes is to hold the folder's lock.

    Raises:
        NotFound: There is nothing to read at `path`.
        ArtifactError: The file is damaged, not a gallery, or of a newer version.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        if readonly and not path.is_file():
            raise NotFound(f"there is no gallery at {path}; let a writer create it first")
        self.path = path
        self._mutex = threading.Lock()  # one statement at a time; sqlite3 connections are not for sharing
        with self._errors():
            mode = "ro" if readonly else "rwc"
            self._base = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors():
                self._open(readonly)
        except BaseException:
            self._base.close()
            raise

    def sequence(self) -> int:
        """Return the number of the newest change, 0 in an empty gallery."""
        return int(self._all("SELECT coalesce(max(seq), 0) FROM items")[0][0])

    def spaces(self) -> dict[str, tuple[int, str]]:
        """Return width and family of each space that was ever written, by id."""
        return {name: (dim, family) for name, dim, family in self._all("SELECT id, dim, family FROM spaces")}

    def add(self, ids: Sequence[str], vectors: Floats, space: Space, texts: Sequence[str]) -> int:
        """Write rows in one transaction and return the sequence number of the first."""
        blobs = (row.astype("<f4", copy=False).tobytes() for row in vectors)
        records = ((name, space.id, space.dim, blob, text) for name, blob, text in zip(ids, blobs, texts, strict=True))
        with self._transaction():
            self._register(space)
            return self._write(records)

    def remove(self, ids: Sequence[str]) -> int:
        """Leave a tombstone for each id, in one transaction, and return the sequence number of the first."""
        with self._transaction():
            return self._write((name, None, None, None, None) for name in ids)

    def since(self, seq: int) -> Iterator[list[Record]]:
        """Yield all rows and tombstones above `seq` in pages, oldest first, as they were at one moment."""
        with self._mutex, self._errors(), closing(self._base.cursor()) as cursor:
            cursor.execute(f"SELECT {COLUMNS} FROM items WHERE seq > ? ORDER BY seq", (seq,))
            while page := cursor.fetchmany(PAGE):
                yield page

    def get(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the rows of those `ids` that are there."""
        found: dict[str, Record] = {}
        for start in range(0, len(ids), PAGE):
            some = ids[start : start + PAGE]
            marks = ",".join("?" * len(some))
            rows = self._all(f"SELECT {COLUMNS} FROM items WHERE id IN ({marks}) AND vector IS NOT NULL", *some)
            found.update((row[1], row) for row in rows)
        return found

    def rows(self, after: int, limit: int) -> list[Record]:
        """Return up to `limit` rows above `after`, oldest first, without tombstones."""
        query = f"SELECT {COLUMNS} FROM items WHERE seq > ? AND vector IS NOT NULL ORDER BY seq LIMIT ?"
        return self._all(query, after, limit)

    def close(self) -> None:
        """Close the file."""
        with self._mutex:
            self._base.close()

    def _open(self, readonly: bool) -> None:
        base = self._base
        application, version = (base.execute(f"PRAGMA {name}").fetchone()[0] for name in self._header())
        tables = base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        fresh = not (application or version or tables)
        if fresh and readonly:  # its writer has not got further, or never will
            raise NotFound(f"gallery {self.path} is still empty; let a writer create it first")
        if not fresh and application != APPLICATION:
            raise ArtifactError(f"{self.path} is not a gallery but another SQLite file; choose another folder")
        if not fresh and version != VERSION:
            raise ArtifactError(f"{self.path} has layout {version}, this release reads {VERSION}; update lifelong")
        if not readonly:
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = FULL")
        if fresh:
            base.executescript(SCHEMA)
            _sync(self.path.parent)
        (verdict,) = base.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise ArtifactError(f"{self.path} is damaged: {verdict.splitlines()[-1]}; restore it from a copy")

    @staticmethod
    def _header() -> tuple[str, str]:
        return "application_id", "user_version"

    def _register(self, space: Space) -> None:
        known = self._base.execute("SELECT dim, family FROM spaces WHERE id = ?", (space.id,)).fetchone()
        if known is None:
            self._base.execute("INSERT INTO spaces VALUES (?, ?, ?)", (space.id, space.dim, space.family))
        elif known != (space.dim, space.family):
            raise SpaceError(
                f"space {space.id!r} is stored with dim={known[0]} and family={known[1]!r}, "
                f"got dim={space.dim} and family={space.family!r}; give another model another space id"
            )

    def _write(self, records: Iterator[tuple[Any, ...]]) -> int:
        (last,) = self._base.execute("SELECT coalesce(max(seq), 0) FROM items").fetchone()
        self._base.executemany(
            f"INSERT OR REPLACE INTO items ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
            ((last + 1 + i, *record) for i, record in enumerate(records)),
        )
        return int(last) + 1

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._mutex, self._errors():
            return self._base.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._mutex, self._errors():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                    self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:  # locked, full, closed: no damage
            raise Unavailable(f"gallery {self.path} cannot be used now: {error}; check disk and permissions") from error
        except sqlite3.DatabaseError as error:
            raise ArtifactError(f"{self.path} is damaged or not a gallery: {error}; restore it from a copy") from error


def _sync(folder: Path) -> None:
    """Make the names of new files in `folder`, and its own, survive a power cut."""
    for path in (folder, folder.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
