"""A gallery inside the process: SQLite is what is true, files with FAISS indexes are what is searched.

Layout of a gallery folder:

```
items.sqlite      every row, bit for bit as given, under an ever rising sequence number, and the list of segments
items.sqlite-wal  SQLite's write-ahead log: what was committed last (also -shm, its index)
segments/         the same rows, ready to be searched; see segments.py. May be deleted while nobody reads or writes
writer.lock       locked by the one process that may write; holds its number
```

What is searched are parts: segments, and in memory the rows that are in none yet (one lane for each vector width: a
buffer of the newest rows, which becomes a part when it is full). When enough of them have gathered, a thread makes
them a segment, together with older segments of no more than a few times their size, and without the dead rows. It
trains a large segment's index anew, on what it holds by then. Old segments go on being used until the new one is there.

A write is committed to SQLite (write-ahead log, `synchronous=FULL`) and only then shown: the writer builds a new view
and replaces one reference. A reader takes that reference once, so it never waits, and sees each `add` whole or not
at all. Nothing that a reader can reach is changed: bitmaps are copied, and the buffer is only filled behind the
length that the reader knows. Other processes follow by `refresh()`, and map the same segments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self, final

import faiss

from lifelong.errors import ConfigError, Unavailable, UnknownName
from lifelong.gallery import inputs
from lifelong.gallery.base import Current, Payload, Row, Stats, Vectors
from lifelong.gallery.compaction import Compactor
from lifelong.gallery.indexes import KINDS
from lifelong.gallery.loading import Loader
from lifelong.gallery.lock import locked
from lifelong.gallery.store import Store
from lifelong.gallery.view import FrozenView
from lifelong.types import Space

FILE, FOLDER = "items.sqlite", "segments"
SEAL = 4096


@final
class EmbeddedGallery(Current):
    """A `Gallery` in a folder; every method may be called from any thread.

    Args:
        path: The folder; made if it is not there, unless `readonly`.
        readonly: Follow a gallery that another process writes, by `refresh()`. A folder that cannot be written can
            be read while nobody else writes it.
        threads: FAISS threads of one search, for the whole process; None leaves them alone.
        seal: Rows that gather in the buffer before they become a part; four times as many become a segment.
        index: What new segments are searched by: `flat`, `ivf`, `hnsw` or `fp16`, see `indexes.py`; `auto` is `flat`
            up to 50,000 rows and `ivf` above.
        background: Make segments by itself, in a thread; otherwise only `compact()` does.

    Raises:
        Locked: Another gallery, mostly of another process, writes here.
        NotFound: There is nothing to follow.
        ArtifactError: The file is damaged or not a gallery.
        Unavailable: The folder cannot be written, or not be read without being written.

    Opening tells FAISS, for the whole process, from which batch on BLAS is worth it; its own default is far off.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        readonly: bool = False,
        threads: int | None = None,
        seal: int = SEAL,
        index: str = "auto",
        background: bool = True,
    ) -> None:
        if seal < 1 or (threads is not None and threads < 1):
            raise ConfigError(f"need seal >= 1 and threads >= 1 or None, got seal={seal} and threads={threads}")
        if index not in ("auto", *KINDS):
            raise UnknownName.among("index", index, ("auto", *KINDS))
        self.path, self.readonly = Path(path), readonly
        self._seal, self._closed = seal, False
        self._mutex = threading.RLock()  # one change at a time; readers do not take it
        with ExitStack() as stack:
            if not readonly:
                stack.callback(locked(self.path).close)
            self._store = Store(self.path / FILE, readonly=readonly)
            stack.callback(self._store.close)
            if threads is not None:
                faiss.omp_set_num_threads(threads)
            self._loader = Loader(self._store, self.path / FOLDER)
            settings = self.path / FOLDER, self._mutex, seal, index
            self._compactor = Compactor(self, self._store, *settings, background=background and not readonly)
            self._reload()
            if not readonly:
                self._compactor.sweep(self.catalog)
            self._release = stack.pop_all()
        self._compactor.nudge()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self, ids: Sequence[str | int], vectors: Vectors, space: Space, payload: Sequence[Payload] | None = None
    ) -> int:
        """Store rows, all or none, durably; see `Gallery.add`.

        Raises:
            ConfigError: This gallery is readonly.
            DataError: Wrong ids, vectors or payload.
            SpaceError: The space is known with another width or family.
        """
        names, array, texts = inputs.added(ids, vectors, space, payload)
        with self._mutex:
            self._writable()
            if names:
                first, dead = self._store.add(names, array, space, texts)
                seqs = range(first, first + len(names))
                self.memory.families[space.id] = space.family
                self._show(lambda: self.memory.put(names, seqs, space.id, array, texts, dead))
            return self._view.sequence

    def renew(self, rows: Sequence[Row], vectors: Vectors, space: Space) -> int:
        """Store new vectors for those of `rows` that are still as they were read; see `Gallery.renew`."""
        names, array, _ = inputs.renewed(rows, vectors, space)
        with self._mutex:
            self._writable()
            now = self._store.get(names)
            same = [i for i, row in enumerate(rows) if now.get(row.id, (0,))[0] == row.seq]
            self.add([names[i] for i in same], array[same], space, [rows[i].payload for i in same])
            return len(same)

    def remove(self, ids: Sequence[str | int]) -> int:
        """Remove rows, all at once and durably; return how many of them were there."""
        wanted = list(dict.fromkeys(inputs.names(ids)))
        with self._mutex:
            self._writable()
            first, dead = self._store.remove(wanted)
            if len(dead):
                self._show(lambda: self.memory.bury(dead, first + len(dead) - 1))
            return len(dead)

    def get(self, ids: Sequence[str | int]) -> list[Row | None]:
        """Return the row of each id, None where there is none."""
        self._open()
        names = inputs.names(ids)
        found = self._store.get(list(dict.fromkeys(names)))
        return [self._loader.row(found[name]) if name in found else None for name in names]

    def rows(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """Return up to `limit` rows whose sequence number is above `after`, oldest first."""
        self._open()
        return [self._loader.row(record) for record in self._store.rows(after, inputs.count(limit, "limit"))]

    def view(self) -> FrozenView:
        """Return the gallery as it is now."""
        self._open()
        return self._view

    def stats(self) -> Stats:
        """Return how much it holds."""
        return replace(self.view().stats(), refused=len(self._loader.refused))

    def commit(self) -> int:
        """Return the newest sequence number; each change was durable when it returned."""
        return self.view().sequence

    def refresh(self) -> int:
        """See what the writer has committed; return the newest sequence number."""
        with self._mutex:
            self._open()
            if self.readonly:
                self._show(self._follow)
            return self._view.sequence

    def compact(self) -> bool:
        """Make as few segments as possible of all rows, trained anew; return whether there was anything to do.

        Searches and writes go on. It needs, for a while, the memory and disk of the largest segment once more.

        Raises:
            ConfigError: This gallery is readonly.
        """
        with self._mutex:
            self._writable()
        return self._compactor.run(full=True)

    def close(self) -> None:
        """Close the file and let the next writer in; views stay usable, and closing twice is fine.

        Waits for a segment that is just being made, and throws it away.
        """
        self._compactor.stop()
        with self._mutex:
            self._closed = True
            self._release.close()

    def show(self) -> None:
        """Let readers see the memory as it is now; for whoever holds the mutex and has changed it."""
        if self.memory.width:
            faiss.cvar.distance_compute_blas_threshold = 4 * self.memory.width
        self._view = self.memory.view()

    def _show(self, change: Callable[[], None]) -> None:
        """Make a change of the memory that the file already holds, let readers see it, and compact if it is time."""
        try:
            change()
        except BaseException:  # interrupted half-way: start again from the file, which is right
            self._reload()
            raise
        self.show()
        self._compactor.nudge()

    def _reload(self) -> None:
        self.memory, self.catalog = self._loader.load(self._seal)
        if not self.readonly and (damaged := self._loader.refused & set(self.catalog.segments)):
            self.catalog = self._store.publish({}, damaged, self.memory.sequence)
        self.show()

    def _follow(self) -> None:
        self.memory, self.catalog = self._loader.follow(self.memory, self.catalog)

    def _open(self) -> None:
        if self._closed:
            raise Unavailable(f"gallery {self.path} is closed; open it again")

    def _writable(self) -> None:
        self._open()
        if self.readonly:
            raise ConfigError(f"gallery {self.path} is open readonly; open it without readonly=True to write")
