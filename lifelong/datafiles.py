"""Reading arrays from disk: npz and IDX, never pickles; whatever is wrong with a file, its name is in the message."""

from __future__ import annotations

import gzip
import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lifelong.errors import DataError, NotFound

Array = NDArray[Any]

IDX_PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
# What numpy and zipfile raise over damaged bytes; a lying header may ask for any amount of memory.
_DAMAGE = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
_IDX_U8 = 8  # the type code of unsigned bytes in an IDX header


def read_npz(path: Path, keys: Sequence[str]) -> list[Array]:
    """Return the arrays called `keys` of an npz file, in that order.

    Raises:
        NotFound: There is no such file.
        DataError: It is damaged, no npz, holds objects (pickles), or lacks one of the arrays.
    """
    try:
        with path.open("rb") as raw:  # numpy leaves a file open that it cannot read
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array, not an npz of {', '.join(keys)}")
            if missing := [key for key in keys if key not in file.files]:
                raise DataError(f"{path} lacks {', '.join(missing)} (it holds {', '.join(file.files) or 'nothing'})")
            return [np.ascontiguousarray(file[key]) for key in keys]
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged or no npz of plain arrays ({_reason(error)}); fetch it again") from error


def read_idx(path: Path) -> Array:
    """Return the array u8 of an IDX file, gzipped where its name ends in `.gz`.

    Raises:
        NotFound: There is no such file.
        DataError: It is damaged, cut short, too long, or not IDX of unsigned bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _IDX_U8 or not 1 <= head[3] <= 4:
                raise DataError(
                    f"{path} is not an IDX file of unsigned bytes (it starts with {head.hex() or 'nothing'})"
                )
            sizes = file.read(4 * head[3])
            shape = tuple(int(n) for n in np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4"))
            body = file.read()
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({_reason(error)}); fetch it again") from error
    if len(shape) != head[3] or len(body) != math.prod(shape):
        promised = f"{list(shape)} bytes" if len(shape) == head[3] else f"{head[3]} sizes"
        raise DataError(f"{path} is cut short or altered: its header promises {promised}, got {len(body)} bytes")
    return np.frombuffer(bytearray(body), np.uint8).reshape(shape)  # a writable copy: torch warns of any other


def find_idx(folder: Path) -> list[Path]:
    """Return the four IDX files of `folder` in the order of `IDX_PARTS`; [] if none is there.

    A plain file is taken before a gzipped one.

    Raises:
        NotFound: Some are there and others are missing.
    """
    found = [_first(folder / f"{part}-ubyte{end}" for end in ("", ".gz")) for part in IDX_PARTS]
    if not any(found):
        return []
    missing = [f"{part}-ubyte[.gz]" for part, path in zip(IDX_PARTS, found, strict=True) if path is None]
    if missing:
        raise NotFound(f"{folder} lacks {', '.join(missing)}; fetch the set again")
    return [path for path in found if path is not None]


def digest(arrays: Sequence[Array]) -> str:
    """Return the sha256 of the types, shapes and bytes of `arrays`; labels `[N]` count as i64, so layouts agree."""
    total = hashlib.sha256()
    for array in arrays:
        if array.ndim == 1 and array.dtype.kind in "iu":
            array = array.astype("<i8")
        total.update(f"{array.dtype.str}{list(array.shape)}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
