"""A gallery in one or several PostgreSQL databases with pgvector: for more rows or more servers than one machine has.

Every row is in one table, `items`, its vector in a column without a fixed width. A space with many rows has an HNSW
index of its own (partial, by expression); smaller ones are compared row by row. Vectors, payloads and the position in
a stream that they came from (`offset`) are one transaction. Rows that were overwritten or removed stay aside for some
minutes, so that a view taken before goes on seeing them. Any number of processes may write: one change at a time is
made, whoever makes it, and each change has a higher number. With several databases see `shards.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, final

from lifelong.errors import ConfigError, Unavailable
from lifelong.gallery import driver, inputs
from lifelong.gallery.base import Current, Payload, Row, Vectors
from lifelong.types import Space

if TYPE_CHECKING:
    from lifelong.gallery.remote import RemoteView

LARGE = 10_000  # rows from which a space gets an index: below, comparing with every row takes a millisecond or two
EFFORT = 100


@final
class PgVectorGallery(Current):
    """A `Gallery` in PostgreSQL; every method may be called from any thread, in any number of processes.

    Args:
        dsn: Connection string, `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, or several: rows are then spread over
            all of these databases, always to be given in the same order. Passwords are never shown.
        schema: Of the tables, one for each gallery of a database; made if it is not there, unless `readonly`.
        readonly: Follow what others write, by `refresh()`; permission to read is enough.
        large: Rows from which a space gets an HNSW index.
        effort: Length of the queue of an index scan, 1..1000: more finds more, and takes longer.
        background: Make indexes by itself, in a thread; otherwise only `compact()` does.

    Raises:
        ConfigError: psycopg is not installed, the server has no pgvector, or databases are missing or out of order.
        NotFound: There is nothing to follow.
        ArtifactError: The schema holds something else, or a gallery of a newer release.
        Unavailable: A server does not answer.
    """

    def __init__(
        self,
        dsn: str | Sequence[str],
        *,
        schema: str = "lifelong",
        readonly: bool = False,
        large: int = LARGE,
        effort: int = EFFORT,
        background: bool = True,
    ) -> None:
        dsns = [dsn] if isinstance(dsn, str) else list(dsn)
        if not dsns or not schema or large < 1 or not 1 <= effort <= 1000:
            raise ConfigError(
                f"need a connection string, a schema, large >= 1 and effort in 1..1000, got {len(dsns)} connection "
                f"strings, schema={schema!r}, large={large} and effort={effort}"
            )
        parts = driver.parts()
        self.readonly, self._closed = readonly, False
        self._ask: Any = parts["statements"]
        databases = [parts["postgres"].Database(one, schema, effort=effort, readonly=readonly) for one in dsns]
        self._shards = parts["shards"].Shards(databases)
        self._mutex = threading.Lock()  # of `_view`
        try:
            parts["tables"].prepare(databases, readonly=readonly)
            self._view = self._newest()
        except BaseException:
            self._shards.close()
            raise
        background &= not readonly
        self._indexer = parts["hnsw"].Indexer(self._shards, large, self._refreshed, background=background)
        self._indexer.nudge(self._view.known)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Return where it is, without passwords."""
        return ", ".join(database.name for database in self._shards.databases)

    def add(
        self,
        ids: Sequence[str | int],
        vectors: Vectors,
        space: Space,
        payload: Sequence[Payload] | None = None,
        *,
        offset: tuple[str, int] | None = None,
    ) -> int:
        """Store rows, all or none, durably; see `Gallery.add`.

        Args:
            ids: See `Gallery.add`.
            vectors: Likewise.
            space: Likewise.
            payload: Likewise.
            offset: Name of a stream and the position up to which it is in the gallery once these rows are: stored in
                the same transaction, see `offset()`.

        Raises:
            ConfigError: This gallery is readonly.
            DataError: Wrong ids, vectors, payload or offset.
            SpaceError: The space is known with another width or family.
            Unavailable: A server does not answer. If it broke off in the middle, adding the same rows again is safe.
        """
        names, array, texts = inputs.added(ids, vectors, space, payload)
        source = inputs.position(offset)
        self._writable()
        if names or source:
            with self._shards.change() as change:
                last = change.first - 1
                if names:
                    last = self._ask.written(change, self._shards, names, array, space, texts)
                if source:
                    self._ask.moved(change, *source)
                change.finish(last)
            self._refreshed()
        return int(self.view().sequence)

    def remove(self, ids: Sequence[str | int]) -> int:
        """Remove rows, all at once and durably; return how many of them were there."""
        wanted = list(dict.fromkeys(inputs.names(ids)))
        self._writable()
        with self._shards.change() as change:
            gone = self._ask.removed(change, self._shards, wanted)
            if gone:
                change.finish(change.first + gone - 1)
        if gone:
            self._refreshed()
        return int(gone)

    def renew(self, rows: Sequence[Row], vectors: Vectors, space: Space) -> int:
        """Store new vectors for those of `rows` that are still as they were read; see `Gallery.renew`."""
        names, array, texts = inputs.renewed(rows, vectors, space)
        self._writable()
        with self._shards.change() as change:
            there = self._ask.numbers(change, self._shards, names)
            same = [i for i, row in enumerate(rows) if there.get(row.id) == row.seq]
            if same:
                kept = [names[i] for i in same], array[same], space, [texts[i] for i in same]
                change.finish(self._ask.written(change, self._shards, *kept))
        if same:
            self._refreshed()
        return len(same)

    def offset(self, source: str) -> int | None:
        """Return up to which position a stream is in the gallery, None if nothing of it is."""
        self._open()
        query = "SELECT position FROM offsets WHERE source = %s"
        found = self._shards.lead.read(lambda connection: connection.execute(query, (source,)).fetchone())
        return None if found is None else int(found[0])

    def get(self, ids: Sequence[str | int]) -> list[Row | None]:
        """Return the row of each id, None where there is none."""
        names = inputs.names(ids)
        found = {row.id: row for row in self._ask.got(self.view(), list(dict.fromkeys(names)))}
        return [found.get(name) for name in names]

    def rows(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """Return up to `limit` rows whose sequence number is above `after`, oldest first."""
        found: list[Row] = self._ask.paged(self.view(), after, inputs.count(limit, "limit"))
        return found

    def view(self) -> RemoteView:
        """Return the gallery as it is now, as far as this process has seen."""
        self._open()
        return self._view

    def commit(self) -> int:
        """Return the newest sequence number; each change was durable when it returned."""
        return self.view().sequence

    def refresh(self) -> int:
        """See what others have committed; return the newest sequence number."""
        self._open()
        self._refreshed()
        return self._view.sequence

    def compact(self) -> bool:
        """Make every index that is due, and forget ended rows; return whether there was an index to make.

        Searches and writes go on.

        Raises:
            ConfigError: This gallery is readonly.
        """
        self._writable()
        self._refreshed()
        with self._shards.change() as change:
            change.touched.update(range(len(change.connections)))
            change.finish(change.first - 1)
        return bool(self._indexer.run(self._indexer.due(self._view.known)))

    def close(self) -> None:
        """Close all connections; views stay usable, with new ones, and closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._indexer.stop()
            self._shards.close()

    def _newest(self) -> RemoteView:
        view: RemoteView = self._ask.newest(self._shards)
        return view

    def _refreshed(self) -> None:
        view = self._newest()
        with self._mutex:  # of two threads, the one that looked first may come last
            if (view.sequence, view.taken) >= (self._view.sequence, self._view.taken):
                self._view = view
        self._indexer.nudge(view.known)

    def _open(self) -> None:
        if self._closed:
            raise Unavailable(f"gallery {self.name} is closed; open it again")

    def _writable(self) -> None:
        self._open()
        if self.readonly:
            raise ConfigError(f"gallery {self.name} is open readonly; open it without readonly=True to write")
