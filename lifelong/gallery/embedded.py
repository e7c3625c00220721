"""A gallery inside the process: SQLite is what is true, FAISS Flat parts in memory are what is searched.

Layout of a gallery folder:

```
items.sqlite      every row, bit for bit as given, under an ever rising sequence number; removals leave tombstones
items.sqlite-wal  SQLite's write-ahead log: what was committed last (also -shm, its index)
writer.lock       locked by the one process that may write; holds its number
```

Layout in memory: one lane for each vector width; a lane is a list of sealed parts (a FAISS Flat index over unit
vectors, arrays of sequence numbers and spaces, a bitmap of living rows) and a buffer of the newest rows, which becomes
a part when it is full. Four parts of one size are merged into one, without the dead rows. All of it is derived from
the file and rebuilt when the gallery opens.

A write is committed to SQLite (write-ahead log, `synchronous=FULL`) and only then shown: the writer builds a new view
and replaces one reference. A reader takes that reference once, so it never waits, and sees each `add` whole or not
at all. Nothing that a reader can reach is changed: bitmaps are copied, and the buffer is only filled behind the
length that the reader knows. Other processes follow by `refresh()`.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self, final

import faiss
import numpy as np

from lifelong.errors import ArtifactError, ConfigError, DataError, Unavailable
from lifelong.gallery import inputs
from lifelong.gallery.base import Hit, Payload, Row, Stats, Vectors, Where
from lifelong.gallery.memory import FrozenView, Memory
from lifelong.gallery.store import Record, Store
from lifelong.locks import FileLock
from lifelong.types import Space

FILE = "items.sqlite"
SEAL = 4096


@final
class EmbeddedGallery:
    """A `Gallery` in a folder; every method may be called from any thread.

    Args:
        path: The folder; made if it is not there, unless `readonly`.
        readonly: Follow a gallery that another process writes, by `refresh()`.
        threads: FAISS threads of one search, for the whole process; None leaves them alone.
        seal: Rows that gather in the buffer before they become a FAISS part.

    Raises:
        Locked: Another gallery, mostly of another process, writes here.
        NotFound: There is nothing to follow.
        ArtifactError: The file is damaged or not a gallery.

    Opening tells FAISS, for the whole process, from which batch on BLAS is worth it; its own default is far off.
    """

    def __init__(
        self, path: Path | str, *, readonly: bool = False, threads: int | None = None, seal: int = SEAL
    ) -> None:
        if seal < 1 or (threads is not None and threads < 1):
            raise ConfigError(f"need seal >= 1 and threads >= 1 or None, got seal={seal} and threads={threads}")
        self.path, self.readonly = Path(path), readonly
        self._seal, self._closed = seal, False
        self._mutex = threading.RLock()  # one change at a time; readers do not take it
        with ExitStack() as stack:
            if not readonly:
                stack.callback(_lock(self.path).close)
            self._store = Store(self.path / FILE, readonly=readonly)
            stack.callback(self._store.close)
            if threads is not None:
                faiss.omp_set_num_threads(threads)
            self._reload()
            self._release = stack.pop_all()

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
        names = inputs.distinct(inputs.names(ids))
        array = inputs.vectors(vectors, inputs.checked(space))
        if len(array) != len(names):
            raise DataError(f"need one vector for each id, got {len(names)} ids and {len(array)} vectors")
        texts = inputs.texts(payload, names)
        with self._mutex:
            self._writable()
            if names:
                first = self._store.add(names, array, space, texts)
                seqs = range(first, first + len(names))
                self._show(lambda: self._memory.put(names, seqs, space.id, array, texts))
            return self._view.sequence

    def remove(self, ids: Sequence[str | int]) -> int:
        """Remove rows, all at once and durably; return how many of them were there."""
        wanted = list(dict.fromkeys(inputs.names(ids)))
        with self._mutex:
            self._writable()
            if names := self._memory.known(wanted):
                first = self._store.remove(names)
                self._show(lambda: self._memory.drop(names, range(first, first + len(names))))
            return len(names)

    def get(self, ids: Sequence[str | int]) -> list[Row | None]:
        """Return the row of each id, None where there is none."""
        self._open()
        names = inputs.names(ids)
        found = self._store.get(list(dict.fromkeys(names)))
        return [self._row(found[name]) if name in found else None for name in names]

    def rows(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """Return up to `limit` rows whose sequence number is above `after`, oldest first."""
        self._open()
        return [self._row(record) for record in self._store.rows(after, inputs.count(limit, "limit"))]

    def search(self, queries: Vectors, space: Space, k: int = 10, where: Where | None = None) -> list[list[Hit]]:
        """Return up to `k` hits of each query, best first; see `Gallery.search`."""
        return self.view().search(queries, space, k, where)

    def view(self) -> FrozenView:
        """Return the gallery as it is now."""
        self._open()
        return self._view

    def stats(self) -> Stats:
        """Return how much it holds."""
        return self.view().stats()

    def commit(self) -> int:
        """Return the newest sequence number; each change was durable when it returned."""
        return self.view().sequence

    def refresh(self) -> int:
        """See what the writer has committed; return the newest sequence number."""
        with self._mutex:
            self._open()
            if self.readonly and self._store.sequence() > self._view.sequence:
                self._show(self._follow)
            return self._view.sequence

    def close(self) -> None:
        """Close the file and let the next writer in; views stay usable, and closing twice is fine."""
        with self._mutex:
            self._closed = True
            self._release.close()

    def _show(self, change: Callable[[], None]) -> None:
        """Make a change of the memory that the file already holds, and publish it."""
        try:
            change()
        except BaseException:  # interrupted half-way: the file is right, so start again from it
            self._reload()
            raise
        self._publish()

    def _reload(self) -> None:
        self._memory = Memory(self._seal)
        self._follow()
        self._publish()

    def _publish(self) -> None:
        if self._memory.width:
            faiss.cvar.distance_compute_blas_threshold = 4 * self._memory.width
        self._view = self._memory.view()

    def _follow(self) -> None:
        self._memory.widths.update({name: dim for name, (dim, _) in self._store.spaces().items()})
        for page in self._store.since(self._memory.sequence):
            for space, group in itertools.groupby(page, key=lambda record: record[2]):
                records = list(group)
                seqs, names = [record[0] for record in records], [record[1] for record in records]
                if space is None:
                    self._memory.drop(names, seqs)
                else:
                    texts = [record[5] or "{}" for record in records]
                    self._memory.put(names, seqs, space, self._vectors(records), texts)

    def _vectors(self, records: list[Record]) -> inputs.Floats:
        """Return the vectors `[N, D]` of records of one space."""
        dim = self._memory.widths.get(records[0][2] or "", records[0][3] or 0)
        sizes = np.array([len(record[4] or b"") for record in records])
        right = (sizes == 4 * dim) & np.array([0 < dim == record[3] for record in records])
        if right.all():
            vectors = np.frombuffer(b"".join(record[4] or b"" for record in records), "<f4").reshape(-1, dim)
            right = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
            if right.all():
                return vectors.astype(np.float32)
        name = records[int(right.argmin())][1]
        raise ArtifactError(f"{self._store.path} is damaged at id {name!r}; restore it from a copy")

    def _row(self, record: Record) -> Row:
        seq, name, space, _, _, text = record
        return Row(name, seq, space or "", self._vectors([record])[0], json.loads(text or "{}"))

    def _open(self) -> None:
        if self._closed:
            raise Unavailable(f"gallery {self.path} is closed; open it again")

    def _writable(self) -> None:
        self._open()
        if self.readonly:
            raise ConfigError(f"gallery {self.path} is open readonly; open it without readonly=True to write")


def _lock(folder: Path) -> FileLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / "writer.lock", "stop it, or open readonly")
    except OSError as error:
        raise Unavailable(f"gallery {folder} cannot be written: {error}; check the path and permissions") from error
