"""The embedded log: one SQLite file, several producers, durable when `append` returns.

```
records(offset, sid, time, payload)   offsets only grow; a sample id is there once
facts(key, value)                     format, and the highest offset that was ever trimmed
readers(name, position, time)         how far who has read, as a hint
```
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import final

from lifelong.errors import ArtifactError, ConfigError, DataError, NotFound, TooLarge
from lifelong.sources.base import LIMIT, PAUSE, Record, Source
from lifelong.sources.translated import translated

FORMAT, PARTITION, NAME = "lifelong-log-1", "log", "log.sqlite"
BUSY_SECONDS = 30.0  # that a producer waits for the others
SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS records(
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT, sid TEXT UNIQUE NOT NULL, time REAL NOT NULL, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS facts(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS readers(name TEXT PRIMARY KEY, position INTEGER NOT NULL, time REAL NOT NULL);
INSERT OR IGNORE INTO facts VALUES ('format', 'lifelong-log-1'), ('trimmed', 0);
COMMIT;
"""


@final
class Log(Source):
    """Records in a folder of this machine; offsets count from 1, in one partition called `log`.

    Args:
        folder: Holds `log.sqlite`.
        create: Make it if it is not there.
        on_gap: See `Source`.
        limit: Bytes of a record; larger ones are refused when they are appended.
        reader: Under which name `commit_hint` notes the position.

    Raises:
        NotFound: There is no log, and `create` was not asked for.
        ArtifactError: The file is no log.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        create: bool = False,
        on_gap: str = "error",
        limit: int = LIMIT,
        reader: str = "trainer",
    ) -> None:
        super().__init__(on_gap, limit)
        self.path, self.reader, self._position = Path(folder) / NAME, reader, 0
        self._at_start = True
        if create:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif not self.path.exists():
            raise NotFound(f"there is no log in {folder}; lifelong stream append makes one")
        with translated(self.path):
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                if create:
                    self._db.executescript(SCHEMA)
                found = self._fact("format")
            except sqlite3.Error:  # a transaction that was begun must not stay open as long as the error is kept
                self._db.close()
                raise
        if found != FORMAT:
            self._db.close()
            raise ArtifactError(f"{self.path} is of the format {found}, not {FORMAT}; use the program that made it")

    def append(self, records: Iterable[tuple[str, bytes]], now: float | None = None) -> int:
        """Add records `(sample id, payload)` in one durable step; return how many were new.

        What has an id that is there already is left out. When this returns, a power cut takes nothing away.

        Args:
            records: See `lifelong.sources.record.encode` for the payload; other bytes become dead letters.
            now: Seconds since 1970 of all of them; by default the clock's.

        Raises:
            DataError: An id is empty.
            TooLarge: A payload is over the limit; nothing was added.
            Unavailable: The disk is full, or other producers held the log for too long; nothing was added.
        """
        rows, moment = [], time.time() if now is None else now
        for sid, payload in records:
            if not sid:
                raise DataError("a sample id is empty; give each sample an id of its own")
            if len(payload) > self.limit:
                raise TooLarge(f"record {sid!r} has {len(payload)} bytes, over the limit of {self.limit}")
            rows.append((sid, moment, payload))
        with translated(self.path), self._writing():
            before = self._db.total_changes
            self._db.executemany("INSERT OR IGNORE INTO records(sid, time, payload) VALUES (?, ?, ?)", rows)
            return self._db.total_changes - before

    def payload(self, sid: str) -> bytes | None:
        """Return the payload of the record with this id, None if it is not there."""
        with translated(self.path):
            row = self._db.execute("SELECT payload FROM records WHERE sid = ?", (sid,)).fetchone()
        return row[0] if row else None

    def trim(self, *, keep: int | None = None, through: int | None = None) -> int:
        """Delete old records; return how many.

        Args:
            keep: The newest that stay, >= 0.
            through: The highest offset that goes.
        """
        if (keep is None) == (through is None) or (keep or 0) < 0:
            raise ConfigError(f"give either keep >= 0 or through, got keep={keep} and through={through}")
        with translated(self.path), self._writing():
            if through is None:
                newest = 'SELECT max("offset") FROM records WHERE "offset" NOT IN '
                newest += '(SELECT "offset" FROM records ORDER BY "offset" DESC LIMIT ?)'
                through = self._db.execute(newest, (keep,)).fetchone()[0] or 0
            gone = self._db.execute('DELETE FROM records WHERE "offset" <= ?', (through,)).rowcount
            # Up to the last one that was there: offsets that nobody has written yet cannot be missed.
            high = self._db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()[0]
            mark = "UPDATE facts SET value = max(value, ?) WHERE key = 'trimmed'"
            self._db.execute(mark, (min(through, high),))
        return gone

    def poll(self, limit: int, timeout: float = 0.0) -> list[Record]:
        """See `Source.poll`."""
        deadline = time.monotonic() + timeout
        while not (found := self._read(limit)) and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(PAUSE, left))
        if found:
            self._position, self._at_start = found[-1].offset, False
        return found

    def seek(self, positions: Mapping[str, int]) -> None:
        """See `Source.seek`."""
        self._at_start = PARTITION not in positions
        self._position = positions.get(PARTITION, 0)

    def first(self) -> dict[str, int]:
        """See `Source.first`."""
        return self._end("min")

    def last(self) -> dict[str, int]:
        """See `Source.last`."""
        return self._end("max")

    def commit_hint(self, positions: Mapping[str, int]) -> None:
        """Note the position under the reader's name, so that people see what may be trimmed."""
        with translated(self.path), self._writing():
            row = (self.reader, positions.get(PARTITION, 0), time.time())
            self._db.execute("INSERT OR REPLACE INTO readers VALUES (?, ?, ?)", row)

    def forget(self, reader: str) -> None:
        """Remove the note of a reader that will not come back: nothing has to be kept for it any more.

        Raises:
            NotFound: Nobody of that name has noted a position.
        """
        with translated(self.path), self._writing():
            if not self._db.execute("DELETE FROM readers WHERE name = ?", (reader,)).rowcount:
                raise NotFound(f"{self.path} knows no reader {reader!r}; lifelong stream show names them")

    def facts(self) -> dict[str, object]:
        """Return count, first and last offset, bytes of payload, and the readers' positions."""
        with translated(self.path):
            count, size = self._db.execute("SELECT count(*), coalesce(sum(length(payload)), 0) FROM records").fetchone()
            readers = dict(self._db.execute("SELECT name, position FROM readers").fetchall())
        first, last = self.first().get(PARTITION), self.last().get(PARTITION)
        trimmed = self._fact("trimmed")
        return {
            "records": count, "bytes": size, "first": first, "last": last, "trimmed": trimmed, "readers": readers
        }  # fmt: skip

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _read(self, limit: int) -> list[Record]:
        with translated(self.path), self._reading():
            rows = self._rows(limit)
            trimmed = int(str(self._fact("trimmed")))
        if trimmed > self._position and not self._at_start:
            self.gap(PARTITION, self._position, rows[0][0] if rows else None)
            self._position = trimmed
        return [
            Record(PARTITION, offset, sid, self._beginning(offset) if payload is None else bytes(payload), moment)
            for offset, sid, moment, payload in rows
        ]

    def _rows(self, limit: int) -> list[tuple[int, str, float, bytes | None]]:
        """Return offset, id, time and payload (None if it is over the limit), as far as there is room."""
        found, size = list[tuple[int, str, float, bytes | None]](), 0
        asked = self._db.execute(
            'SELECT "offset", sid, time, CASE WHEN length(payload) <= ? THEN payload END FROM records '
            'WHERE "offset" > ? ORDER BY "offset" LIMIT ?',
            (self.limit, self._position, limit),
        )
        for row in asked:
            size += self.limit if row[3] is None else len(row[3])
            if found and size > self.room:
                break
            found.append(row)
        asked.close()
        return found

    def _beginning(self, offset: int) -> bytes:
        """Return the first limit + 1 bytes of a record over the limit, without reading the rest."""
        with translated(self.path), self._db.blobopen("records", "payload", offset, readonly=True) as blob:
            return blob.read(self.limit + 1)

    def _fact(self, key: str) -> object:
        row = self._db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _end(self, which: str) -> dict[str, int]:
        with translated(self.path):
            offset = self._db.execute(f'SELECT {which}("offset") FROM records').fetchone()[0]
        return {} if offset is None else {PARTITION: offset}

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """See one state of the file: what is deleted meanwhile is either all there or known to be gone."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")
