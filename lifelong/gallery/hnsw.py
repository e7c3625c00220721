"""HNSW indexes of a gallery in PostgreSQL: one for each large space, in every database, made beside the requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import final

import psycopg

from lifelong.gallery.postgres import Connection, Database
from lifelong.gallery.remote import Known
from lifelong.gallery.shards import Shards

WIDEST = 2000  # pgvector indexes no wider vectors
VALID = "SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(%s)"
log = logging.getLogger("lifelong.gallery")


@final
class Indexer:
    """Makes the indexes of a gallery.

    Args:
        shards: Its databases.
        large: Rows from which a space gets one.
        shown: Called when there is a new one.
        background: Start by itself.
    """

    def __init__(self, shards: Shards, large: int, shown: Callable[[], object], *, background: bool) -> None:
        self._shards, self._large, self._shown, self._background = shards, large, shown, background
        self._turn, self._mutex = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._building: Connection | None = None
        self._closing = False
        self._failed = 0  # rows of the space that could not be indexed last

    def due(self, known: dict[str, Known]) -> list[Known]:
        """Return the spaces that are large and have no index."""
        return [s for s in known.values() if not s.indexed and s.rows >= self._large and s.dim <= WIDEST]

    def nudge(self, known: dict[str, Known]) -> None:
        """Start beside the caller if there is something to do."""
        due = self.due(known) if self._background and not self._closing else []
        with self._mutex:
            if (
                max((space.rows for space in due), default=0) > 1.5 * self._failed
                and self._idle()
                and not self._closing
            ):
                self._thread = threading.Thread(target=self._work, args=(due,), name="gallery-index")
                self._thread.start()

    def run(self, due: list[Known]) -> bool:
        """Make the indexes of `due` spaces; return whether there were any."""
        with self._turn:
            for space in due:
                for database in self._shards.databases:
                    self._build(database, space)
                with self._shards.lead.errors(), self._shards.lead.open() as lead:
                    lead.execute("UPDATE spaces SET indexed = true WHERE number = %s", (space.number,))
                self._shown()
        return bool(due)

    def stop(self) -> None:
        """Give up what is being made, and start nothing any more."""
        with self._mutex:
            self._closing, thread = True, self._thread
            if self._building is not None:
                with suppress(psycopg.Error):
                    self._building.cancel_safe()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _idle(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def _build(self, database: Database, space: Known) -> None:
        """Make one index while others write; what an attempt that was cut short left is thrown away first."""
        name = f"items_hnsw_{space.number}"
        with database.errors(), database.open() as connection:
            with self._mutex:
                if self._closing:
                    return
                self._building = connection
            try:
                connection.execute("SELECT pg_advisory_lock(hashtext(%s))", (f"lifelong {database.schema} {name}",))
                found = connection.execute(VALID, (name,)).fetchone()
                if found is not None and not found[0]:
                    connection.execute(f"DROP INDEX CONCURRENTLY {name}".encode())
                if found is None or not found[0]:
                    of = f"((vec::vector({space.dim})) vector_cosine_ops) WHERE space = {space.number}"
                    connection.execute(f"CREATE INDEX CONCURRENTLY {name} ON items USING hnsw {of}".encode())
                connection.execute("ANALYZE items")  # without, the planner takes a table of millions for an empty one
            finally:
                with self._mutex:
                    self._building = None
                if not connection.closed:
                    connection.execute("SELECT pg_advisory_unlock_all()")

    def _work(self, due: list[Known]) -> None:
        try:
            self.run(due)
        except Exception:
            if not self._closing:
                self._failed = max(space.rows for space in due)
                log.exception(
                    "an index of the gallery could not be made; it is searched without, and tried again later"
                )
