"""A directory of `.npz` and `.parquet` files as a stream: sorted by name, growing at the end.

A file is one partition, its rows are the offsets. Files are read one after the other, so a file must be complete when
it gets its name (write it aside, then rename), and a new one must sort after those that are there. They are read in
parts (`lifelong.sources.tables`).

`.npz` has the arrays `x` [N, ...] and `y` [N], and may have `sid` [N], `task` [N] and `time` [N]. `.parquet` has the
column `y` and either a column `x` of lists or one numeric column per feature; `sid`, `task` and `time` likewise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

import numpy as np

from lifelong.errors import DataError, LifelongError, NotFound, TooLarge, Unavailable
from lifelong.sources.base import LIMIT, PAUSE, Record, Source
from lifelong.sources.record import encode
from lifelong.sources.tables import DAMAGED, READERS, Table, opened

log = logging.getLogger("lifelong.sources")

SETTLED = 10.0  # seconds since its last change after which a file that cannot be read is a damaged one


@final
class Folder(Source):
    """The files of a directory, in the order of their names.

    Args:
        folder: Where they are.
        on_gap: See `Source`.
        limit: See `Source`.

    Raises:
        NotFound: There is no such directory.
    """

    sequential: bool = True

    def __init__(self, folder: Path | str, *, on_gap: str = "error", limit: int = LIMIT) -> None:
        super().__init__(on_gap, limit)
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise NotFound(f"there is no directory {folder}; name one with .npz or .parquet files")
        self._file, self._row = "", -1  # the last row that was given
        self._held: tuple[str, Table] | None = None
        self._known: set[str] | None = None  # files that were there
        self._aside, self._changing = set[str](), ""  # files that are damaged, which was said; one that may not be

    def poll(self, limit: int, timeout: float = 0.0) -> list[Record]:
        """See `Source.poll`."""
        deadline = time.monotonic() + timeout
        while not (found := self._read(limit)) and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(PAUSE, left))
        if found:
            self._file, self._row = found[-1].partition, found[-1].offset
        return found

    def seek(self, positions: Mapping[str, int]) -> None:
        """See `Source.seek`; files before the last one that is named are done with."""
        self._file = max(positions, default="")
        self._row = positions.get(self._file, -1)

    def first(self) -> dict[str, int]:
        """See `Source.first`."""
        return {name: 0 for name in self._names() if self._count(name)}

    def last(self) -> dict[str, int]:
        """See `Source.last`."""
        return {name: count - 1 for name in self._names() if (count := self._count(name))}

    def close(self) -> None:
        """Let go of the file that is open."""
        held, self._held = self._held, None
        if held:
            held[1].close()

    def _names(self) -> list[str]:
        try:
            paths = [p for p in self.folder.iterdir() if p.suffix in READERS and p.name[0] not in "._"]
        except OSError as error:
            raise Unavailable(f"{self.folder} cannot be listed: {error}; mount it") from error
        return sorted(path.name for path in paths)

    def _read(self, limit: int) -> list[Record]:
        names, found, size = self._names(), list[Record](), 0
        if self._file and self._file not in names:
            self.gap(self._file, self._row, None)
            self._row = -1
            self._file = max((name for name in names if name < self._file), default="")
            self._row = self._count(self._file) - 1 if self._file else -1
        self._look(names)
        for name in names:
            if name < self._file:
                continue
            for record in self._after(name, self._row + 1 if name == self._file else 0):
                size += len(record.payload)
                if found and size > self.room:
                    return found
                found.append(record)
                if len(found) == limit:
                    return found
            if self._changing == name:
                break
        return found

    def _after(self, name: str, row: int) -> Iterator[Record]:
        """Yield the rows of a file from one on; of what cannot be read, what is wrong, as a row that is no record."""
        try:
            while row < len(self._rows(name)):
                yield self.record(name, row)
                row += 1
            self._changing = "" if self._changing == name else self._changing
        except DataError as error:
            if name in self._aside:
                return
            if time.time() - self._changed(name) < SETTLED:
                if self._changing != name:
                    log.warning("%s; it has just changed, so it is looked at again", error)
                self._changing = name
                return
            self._aside.add(name)
            log.warning("%s; it is put aside as a dead letter", error)
            yield Record(name, row, f"{name}:{row}", f"{name} is put aside: {error}".encode(), 0.0)

    def _look(self, names: Sequence[str]) -> None:
        """Say which files came since the last look and sort before what was read: nobody reads there any more."""
        if self._known is None:
            self._known = {name for name in names if name >= self._file or not self._came(name)}
        for name in sorted(set(names) - self._known):
            if name < self._file:
                self.late += 1
                log.warning("%s sorts before %s and came after it: it is not read; rename it", name, self._file)
        self._known.update(names)

    def _came(self, name: str) -> bool:
        """Return whether a file came while nobody read."""
        with suppress(OSError):
            return 0 < self.left < (self.folder / name).stat().st_ctime
        return False

    def _changed(self, name: str) -> float:
        with suppress(OSError):
            return (self.folder / name).stat().st_mtime
        return time.time()  # it has just gone

    def _count(self, name: str) -> int:
        try:
            return len(self._rows(name))
        except DataError:
            return 1  # what is said of it

    def record(self, name: str, row: int) -> Record:
        """Return one row of the file `name`.

        Raises:
            DataError: The file is damaged there.
        """
        at, label = {}, None
        try:
            at = self._rows(name).row(row)
            label = at["y"].item() if isinstance(at["y"], np.generic) else at["y"]
            payload = encode(np.asarray(at["x"]), label, int(at.get("task", -1)), self.limit)
        except LifelongError as error:  # a row that cannot be written is a dead letter, not the end of the stream
            payload = f"row {row} of {name}: {error}".encode()
            if isinstance(error, TooLarge):
                payload = payload.ljust(self.limit + 1)
        except DAMAGED as error:
            raise DataError(f"{self.folder / name} cannot be read at row {row}: {error}") from error
        return Record(name, row, str(at.get("sid", f"{name}:{row}")), payload, float(at.get("time", 0)))

    def _rows(self, name: str) -> Table:
        if self._held is None or self._held[0] != name:
            self.close()
            self._held = name, opened(self.folder / name, self.limit)
        return self._held[1]


def files_of(path: Path, limit: int, size: int) -> Iterator[list[Record]]:
    """Yield the records of one file, or of a directory's files, at most `size` at a time.

    Raises:
        NotFound: There is nothing at `path`.
        DataError: A file cannot be read, or is of another kind.
    """
    if path.is_dir():
        with Folder(path, limit=limit) as folder:
            names = folder._names()
        for name in names:
            yield from files_of(path / name, limit, size)
        return
    if not path.exists():
        raise NotFound(f"there is no file {path}")
    if path.suffix not in READERS:
        raise DataError(f"{path} is none of {', '.join(READERS)}; convert it first")
    with Folder(path.parent, limit=limit) as folder:
        count = len(folder._rows(path.name))
        for start in range(0, count, size):
            yield [folder.record(path.name, row) for row in range(start, min(start + size, count))]
