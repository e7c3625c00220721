"""What `.npz` and `.parquet` files hold, read in parts: neither a large file nor a huge record fills the memory.

Sizes are known before anything is read: those of an `.npz` by the headers of its arrays, those of a `.parquet` by its
metadata. There a cell of a column of lists or texts may be as large as its row group, so of larger ones than `GROUP` no
row is read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np

from lifelong.errors import DataError, TooLarge, Unavailable

OWN = ("x", "y", "sid", "task", "time")
PART = 16 << 20  # bytes of inputs that are read at once, of an .npz
ROWS = 1024  # that are read at once, of a .parquet
GROUP = 256 << 20  # bytes of lists and texts in a row group, and of whatever has to be read as a whole
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Table(Protocol):
    """The rows of one file."""

    def __len__(self) -> int:
        """Return how many there are."""

    def row(self, number: int) -> dict[str, Any]:
        """Return `x`, `y`, and what else of `OWN` the file has, of one row.

        Raises:
            TooLarge: It is not read for its size.
        """

    def close(self) -> None:
        """Let go of the file."""


@final
class Npz:
    """Arrays in a zip file.

    Args:
        path: Of the file.
        limit: Bytes of a row that is read.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._zip = zipfile.ZipFile(path)
        names = [name for name in OWN if f"{name}.npy" in self._zip.namelist()]
        heads = {name: self._head(name) for name in names}
        counts = {name: shape[0] for name, (shape, *_) in heads.items()}
        if not {"x", "y"} <= set(counts) or len(set(counts.values())) != 1:
            raise DataError(f"needs x and y of the same length, got {counts}")
        self.count, self.limit = heads["x"][0][0], limit
        sizes = {name: math.prod(shape[1:]) * kind.itemsize for name, (shape, _, kind, _) in heads.items()}
        self.size = sum(sizes.values())
        whole = [n for n, (_, fortran, *_) in heads.items() if (n != "x" or fortran) and sizes[n] <= limit]
        if any(sizes[name] * self.count > GROUP for name in whole):
            raise ValueError(f"{', '.join(whole)} must be read whole and are too large; write rows one after the other")
        self._whole = {name: self._array(name) for name in whole}
        self._shape, _, self._kind, self._start = heads["x"]
        self._width, self._member = sizes["x"], self._zip.open("x.npy")
        self._first, self._part = 0, np.empty((0, *self._shape[1:]), self._kind) if self.size <= limit else None

    def __len__(self) -> int:
        return self.count

    def row(self, number: int) -> dict[str, Any]:
        """See `Table.row`."""
        if self._part is None:
            raise TooLarge(f"a row of {self.size} bytes is over the limit of {self.limit}; send smaller samples")
        found = {name: values[number] for name, values in self._whole.items()}
        return found if "x" in found else {"x": self._input(number), **found}

    def close(self) -> None:
        """See `Table.close`."""
        self._zip.close()

    def _input(self, number: int) -> np.ndarray:
        assert self._part is not None
        if not self._first <= number < self._first + len(self._part):
            rows = min(max(1, PART // max(self._width, 1)), self.count - number)
            self._member.seek(self._start + number * self._width)
            values = self._member.read(rows * self._width)
            self._first, self._part = number, np.frombuffer(values, self._kind).reshape(rows, *self._shape[1:])
        found: np.ndarray = self._part[number - self._first]
        return found

    def _head(self, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        """Return shape, whether it is in Fortran order, type, and where the values begin."""
        with self._zip.open(f"{name}.npy") as member:
            shape, fortran, kind = HEADERS[np.lib.format.read_magic(member)](member)
            if kind.hasobject or not shape:
                raise ValueError(f"{name} is no array of numbers or texts with rows")
            return shape, fortran and len(shape) > 1, kind, member.tell()

    def _array(self, name: str) -> np.ndarray:
        with self._zip.open(f"{name}.npy") as member:
            found: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        return found


@final
class Parquet:
    """Row groups of columns.

    Args:
        path: Of the file.
        limit: See `Npz`; what a row takes is only known when it has been read.

    Raises:
        Unavailable: pyarrow is not installed.
    """

    def __init__(self, path: Path, limit: int) -> None:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise Unavailable("Parquet needs pyarrow: pip install 'lifelong[parquet]'") from error
        del limit
        self._file = parquet.ParquetFile(path)
        about, names = self._file.metadata, self._file.schema_arrow.names
        self._features = [] if "x" in names else [name for name in names if name not in OWN]
        if "y" not in names or not ("x" in names or self._features):
            raise DataError(f"needs a column y, and x or one for each feature; got {', '.join(names)}")
        self._groups: list[int] = [0, *accumulate(about.row_group(i).num_rows for i in range(about.num_row_groups))]
        self._parts: Iterator[Any] = iter(())
        self._part, self._first, self._rows, self._group = dict[str, Any](), 0, 0, -1

    def __len__(self) -> int:
        return self._groups[-1]

    def row(self, number: int) -> dict[str, Any]:
        """See `Table.row`."""
        group = bisect_right(self._groups, number) - 1
        if (size := self._size(group)) > GROUP:
            raise TooLarge(
                f"row group {group} has {size} bytes of lists or texts, any part of which may be in this row; "
                f"write row groups of at most {GROUP} bytes"
            )
        if group != self._group or number < self._first:
            self._group, self._first, self._rows = group, self._groups[group], 0
            self._parts = self._file.iter_batches(ROWS, row_groups=[group])
        while number >= self._first + self._rows:
            self._first += self._rows
            self._take(next(self._parts))
        return {name: values[number - self._first] for name, values in self._part.items()}

    def close(self) -> None:
        """See `Table.close`."""
        self._file.close()

    def _size(self, group: int) -> int:
        """Return the bytes of those columns of a group of which one cell may take any share."""
        about = self._file.metadata.row_group(group)
        columns = [(about.column(i), self._file.schema.column(i)) for i in range(about.num_columns)]
        return sum(
            max(column.total_uncompressed_size, column.num_values * WIDTHS.get(column.physical_type, 0))
            for column, kind in columns
            if kind.max_repetition_level or column.physical_type not in WIDTHS
        )

    def _take(self, batch: Any) -> None:  # noqa: ANN401 - of pyarrow
        self._rows = len(batch)
        self._part = {name: batch[name].to_pylist() for name in OWN[1:] if name in batch.schema.names}
        if self._features:
            columns = [batch[name].to_numpy(zero_copy_only=False) for name in self._features]
            self._part["x"] = np.stack(columns, 1).astype(np.float32)
        else:
            self._part["x"] = [_plain(cell) for cell in batch["x"]]


def _plain(cell: Any) -> np.ndarray:  # noqa: ANN401 - of pyarrow
    """Return a list of numbers, which may be large, without making objects of them; lists of lists by way of those."""
    values: Any = getattr(cell, "values", None)
    if values is None or str(values.type) not in ("float", "double"):
        return np.asarray(cell.as_py(), np.float32)
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float32)


READERS: Mapping[str, Callable[[Path, int], Table]] = {".npz": Npz, ".parquet": Parquet}


def opened(path: Path, limit: int) -> Table:
    """Return the rows of a file.

    Raises:
        DataError: It is damaged, or not what it should be.
    """
    try:
        return READERS[path.suffix](path, limit)
    except DataError as error:
        raise DataError(f"{path} {error}") from error
    except DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}; write files aside and rename them") from error
