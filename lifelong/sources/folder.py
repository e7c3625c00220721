"""A directory of `.npz` and `.parquet` files as a stream: sorted by name, growing at the end.

A file is one partition, its rows are the offsets. Files are read one after the other, so a file must be complete when
it gets its name (write it aside, then rename), and a new one must sort after those that are there. They are read in
parts (`lifelong.sources.tables`).

`.npz` has the arrays `x` [N, ...] and `y` [N], and may have `sid` [N], `task` [N] and `time` [N]. `.parquet` has the
column `y` and either a column `x` of lists or one numeric column per feature; `sid`, `task` and `time` likewise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import numpy as np

from lifelong.errors import DataError, LifelongError, NotFound, TooLarge, Unavailable
from lifelong.sources.base import LIMIT, PAUSE, Record, Source
from lifelong.sources.record import encode
from lifelong.sources.tables import DAMAGED, READERS, Table, opened


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
        return {name: 0 for name in self._names() if len(self._rows(name))}

    def last(self) -> dict[str, int]:
        """See `Source.last`."""
        return {name: count - 1 for name in self._names() if (count := len(self._rows(name)))}

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
        names, found = self._names(), list[Record]()
        if self._file and self._file not in names:
            self.gap(self._file, self._row, None)
            self._row = -1
            self._file = max((name for name in names if name < self._file), default="")
            self._row = len(self._rows(self._file)) - 1 if self._file else -1
        for name in names:
            if name < self._file or len(found) >= limit:
                continue
            rows, start = self._rows(name), self._row + 1 if name == self._file else 0
            stop = min(len(rows), start + limit - len(found))
            found += [self.record(name, row) for row in range(start, stop)]
        return found

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
            while records := folder.poll(size):
                yield records
        return
    if not path.exists():
        raise NotFound(f"there is no file {path}")
    if path.suffix not in READERS:
        raise DataError(f"{path} is none of {', '.join(READERS)}; convert it first")
    with Folder(path.parent, limit=limit) as folder:
        count = len(folder._rows(path.name))
        for start in range(0, count, size):
            yield [folder.record(path.name, row) for row in range(start, min(start + size, count))]
