"""Predictions that somebody may still label: a bounded table on disk, shared by all workers of the server.

```
predictions(seq, id, version, label, shape, x, time)   the newest LIFELONG_REMEMBER of them
labels(id, label, revision)                            what was said of them
tallies(version, label, correct, total)                what that makes of each version, by true label
```
Everything a kill -9 can leave behind is whole: a label is in the stream before it is noted here, and a label that is
sent again has the same id in the stream.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from lifelong.errors import ArtifactError, Busy, Unavailable
from lifelong.labels import Label
from serving.live import Floats

BUSY_SECONDS = 5.0  # that one worker waits for the others
SWEEP = 256  # predictions between two looks at how many there are
VERSIONS = 200  # whose tallies are kept
SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL,
    version INTEGER NOT NULL, label TEXT NOT NULL, shape TEXT NOT NULL, x BLOB NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS labels(id TEXT PRIMARY KEY, label TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tallies(version INTEGER, label TEXT, correct INTEGER NOT NULL, total INTEGER NOT NULL,
    PRIMARY KEY(version, label)) WITHOUT ROWID;
"""
Append = Callable[[Sequence[tuple[str, Floats, Label]]], None]


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """A label that somebody gives: of which prediction, and (to order corrections) its revision, or None."""

    prediction: str
    label: Label
    revision: int | None = None


@final
class Remembered:
    """The table.

    Args:
        path: Of its file; made if it is not there.
        most: Predictions that are kept; the oldest are forgotten first.
        lost: Is told how many were forgotten before anybody had labelled them.

    Raises:
        ArtifactError: The file is no database.
        Unavailable: The disk is full, or cannot be written.
    """

    def __init__(self, path: Path, most: int, lost: Callable[[int], None] = lambda _: None) -> None:
        self.path, self.most, self._since, self._lost = path, most, 0, lost
        self._mutex = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.OperationalError) as error:
            raise self._unusable(error) from error
        except sqlite3.DatabaseError as error:
            raise ArtifactError(f"{path} is damaged: {error}; move it away: only open predictions are lost") from error

    def add(self, version: int, labels: Sequence[Label], x: Floats) -> list[str]:
        """Remember predictions and return an id for each; they outlive this process.

        Args:
            version: That made them.
            labels: The likeliest one of each sample.
            x: Samples `[N, ...]`.

        Raises:
            Busy: Other workers held the table for too long.
            Unavailable: The disk is full, or cannot be written.
        """
        stem, shape, now = uuid.uuid4().hex[:20], json.dumps(x.shape[1:]), time.time()
        ids = [f"{stem}-{row}" for row in range(len(x))]
        rows = [
            (name, version, json.dumps(label), shape, np.ascontiguousarray(row, "<f4").tobytes(), now)
            for name, label, row in zip(ids, labels, x, strict=True)
        ]
        with self._writing():
            self._db.executemany(
                "INSERT INTO predictions(id, version, label, shape, x, time) VALUES (?, ?, ?, ?, ?, ?)", rows
            )
            self._since += len(rows)
            if self._since >= min(SWEEP, self.most):
                self._since = 0
                self._sweep()
        return ids

    def label(self, verdicts: Sequence[Verdict], append: Append) -> list[tuple[str, float]]:
        """Take labels; return what became of each, and the seconds since its prediction (0 if that is unknown).

        Args:
            verdicts: The labels.
            append: Puts `(sample id, x, label)` into the stream, durably; what it has already it leaves out.

        Returns:
            `accepted`, `corrected`, `duplicate` (the same was said before), `stale` (of an older revision than what
            is known) or `unknown` (never made here, or forgotten).
        """
        pending: list[tuple[str, Floats, Label]] = []
        with self._writing():
            found = [self._take(verdict, pending) for verdict in verdicts]
            if pending:
                append(pending)
        return found

    def _take(self, verdict: Verdict, pending: list[tuple[str, Floats, Label]]) -> tuple[str, float]:
        """Note one label in the open transaction, and what the stream is to get of it."""
        row = self._db.execute(
            "SELECT version, label, shape, x, time FROM predictions WHERE id = ?", (verdict.prediction,)
        ).fetchone()
        if row is None:
            return "unknown", 0.0
        version, predicted, shape, data, made = row
        said = json.dumps(verdict.label)
        known = self._db.execute("SELECT label, revision FROM labels WHERE id = ?", (verdict.prediction,)).fetchone()
        if known and known[0] == said:
            if verdict.revision is not None and verdict.revision > known[1]:  # what comes later is measured by it
                self._db.execute("UPDATE labels SET revision = ? WHERE id = ?", (verdict.revision, verdict.prediction))
            return "duplicate", 0.0
        revision = verdict.revision if verdict.revision is not None else (known[1] + 1 if known else 1)
        if known and revision <= known[1]:
            return "stale", 0.0
        digest = hashlib.sha256(said.encode()).hexdigest()[:8]
        x = np.frombuffer(data, "<f4").reshape(json.loads(shape))
        pending.append((f"{verdict.prediction}.{revision}.{digest}", x, verdict.label))
        self._db.execute("INSERT OR REPLACE INTO labels VALUES (?, ?, ?)", (verdict.prediction, said, revision))
        if known:
            self._count(version, known[0], predicted, -1)
        self._count(version, said, predicted, +1)
        return ("corrected" if known else "accepted"), max(0.0, time.time() - made)

    def tallies(self) -> dict[int, dict[Label, tuple[int, int]]]:
        """Return (correct, total) by version and true label."""
        with self._mutex:
            rows = self._db.execute("SELECT version, label, correct, total FROM tallies WHERE total > 0").fetchall()
        found: dict[int, dict[Label, tuple[int, int]]] = {}
        for version, label, correct, total in rows:
            found.setdefault(version, {})[json.loads(label)] = (correct, total)
        return found

    def __len__(self) -> int:
        """Return how many predictions are remembered."""
        with self._mutex:
            (count,) = self._db.execute("SELECT count(*) FROM predictions").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        with self._mutex:
            self._db.close()

    def _count(self, version: int, truth: str, predicted: str, sign: int) -> None:
        self._db.execute(
            "INSERT INTO tallies VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "correct = correct + excluded.correct, total = total + excluded.total",
            (version, truth, sign * (truth == predicted), sign),
        )

    def _sweep(self) -> None:
        (newest,) = self._db.execute("SELECT max(seq) FROM predictions").fetchone()
        (lost,) = self._db.execute(
            "SELECT count(*) FROM predictions WHERE seq <= ? AND id NOT IN (SELECT id FROM labels)",
            (newest - self.most,),
        ).fetchone()
        if lost:
            self._lost(lost)
        self._db.execute("DELETE FROM predictions WHERE seq <= ?", (newest - self.most,))
        self._db.execute("DELETE FROM labels WHERE id NOT IN (SELECT id FROM predictions)")
        self._db.execute(
            "DELETE FROM tallies WHERE version NOT IN "
            "(SELECT DISTINCT version FROM tallies ORDER BY version DESC LIMIT ?)",
            (VERSIONS,),
        )

    def _unusable(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self.path} cannot be written now: {error}; look at the disk, then send it again")

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """One writer at a time, among threads and among workers; all or nothing."""
        with self._mutex:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise self._unusable(error) from error
                raise Busy(f"the predictions are being written by others: {error}; send it again") from error
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
