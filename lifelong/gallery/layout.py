"""What a gallery's SQLite file looks like, and how it is opened, made, brought up to date or refused."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from lifelong.errors import ArtifactError, NotFound, Unavailable

APPLICATION = 0x4C4C4741  # "LLGA" in the header of the file: this one is ours
VERSION = 2
FIRST = """
CREATE TABLE items (
    seq INTEGER PRIMARY KEY,  -- when it was written: ever rising, and never used again
    id TEXT NOT NULL UNIQUE,
    space TEXT REFERENCES spaces (id),
    dim INTEGER,
    vector BLOB,              -- dim little-endian float32, as given
    payload TEXT              -- a JSON object
);
CREATE TABLE spaces (id TEXT PRIMARY KEY, dim INTEGER NOT NULL, family TEXT NOT NULL) WITHOUT ROWID;
"""
SECOND = """
CREATE TABLE dead (
    seq INTEGER PRIMARY KEY,  -- the change that overwrote or removed
    row INTEGER NOT NULL      -- what had been written as this seq
);
CREATE TABLE segments (
    name TEXT PRIMARY KEY,    -- of the folder below segments/
    facts TEXT NOT NULL       -- a JSON object: kind of index, spaces, sizes and checksums of the files
) WITHOUT ROWID;
CREATE TABLE marks (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO marks VALUES ('generation', 0), ('reached', 0), ('purged', 0);
"""
TOMBSTONES = """
INSERT INTO dead SELECT seq, seq FROM items WHERE vector IS NULL;
DELETE FROM items WHERE vector IS NULL;
"""


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """Say what SQLite's errors mean for a gallery.

    Raises:
        Unavailable: Locked, full, closed: no damage.
        ArtifactError: Anything else.
    """
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
        raise Unavailable(f"gallery {path} cannot be used now: {error}; check disk and permissions") from error
    except sqlite3.DatabaseError as error:
        raise ArtifactError(f"{path} is damaged or not a gallery: {error}; restore it from a copy") from error


def connected(path: Path, mode: str) -> sqlite3.Connection:
    """Return a connection that threads may share, if one at a time uses it; `mode` is SQLite's part of a URI."""
    uri = f"{path.absolute().as_uri()}?{mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def reading_mode(path: Path) -> str:
    """Return how a gallery that is there can be read.

    SQLite's write-ahead log wants a file beside it, also from readers. Where none can be made, a file without a log
    is read as one that never changes.

    Raises:
        Unavailable: There is a log, and no way to read it.
    """
    with closing(connected(path, "mode=ro")) as base:
        try:
            base.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return "mode=ro"
        except sqlite3.OperationalError as error:
            if os.access(path.parent, os.W_OK) or not os.access(path, os.R_OK):
                return "mode=ro"  # not that: let whoever uses it next report it
            if waiting(path):
                raise Unavailable(
                    f"gallery {path} holds changes in {path.name}-wal that cannot be read without write access to "
                    f"{path.parent} ({error}); mount it writable, or let its writer close it first"
                ) from error
            return "mode=ro&immutable=1"


def waiting(path: Path) -> bool:
    """Return whether there is a write-ahead log with something in it, so that the file alone may be behind."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def prepare(base: sqlite3.Connection, path: Path, *, readonly: bool) -> None:
    """Check the file; make its tables, or bring them up to date, unless `readonly`.

    Raises:
        NotFound: It is empty, and `readonly`.
        ArtifactError: It is damaged, not a gallery, or of another version.
    """
    application, version, tables = (
        base.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    fresh = not (application or version or tables)
    if fresh and readonly:  # its writer has not got further, or never will
        raise NotFound(f"gallery {path} is still empty; let a writer create it first")
    if not fresh and application != APPLICATION:
        raise ArtifactError(f"{path} is not a gallery but another SQLite file; choose another folder")
    if not fresh and version not in range(1, VERSION + 1):
        raise ArtifactError(f"{path} has layout {version}, this release reads {VERSION}; update lifelong")
    if not fresh and version < VERSION and readonly:
        raise ArtifactError(f"{path} has layout {version}, not {VERSION}; open it once for writing to bring it up")
    if not readonly:
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = FULL")
    if not fresh:
        (verdict,) = base.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise ArtifactError(f"{path} is damaged: {verdict.splitlines()[-1]}; restore it from a copy")
    if fresh or version < VERSION:
        steps = (FIRST if fresh else "") + SECOND + ("" if fresh else TOMBSTONES)
        header = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
        base.executescript(f"BEGIN IMMEDIATE;{steps}{header}COMMIT;")
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make the names of new files in `folder`, and its own, survive a power cut."""
    for path in (folder, folder.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
