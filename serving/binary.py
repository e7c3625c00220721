"""Samples that come as bytes: `.npy` files and bare float32 numbers; never a pickle."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.errors import DataError


def npy(body: bytes) -> npt.NDArray[Any]:
    """Return the array in a `.npy` body; its shape is checked later, against the model's.

    Raises:
        DataError: It is none, is cut short, or holds anything but plain numbers.
    """
    try:
        array = np.load(io.BytesIO(body), allow_pickle=False, max_header_size=1024)
    except (ValueError, EOFError, OSError, MemoryError, OverflowError) as error:
        raise DataError(f"the body is not a .npy file: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        kind = getattr(array, "dtype", "an archive")
        raise DataError(f"a .npy body must hold numbers, got {kind}; save it as float32")
    return array


def raw(body: bytes) -> npt.NDArray[np.float32]:
    """Return the little-endian float32 numbers in a body, `[n]`; `decode.samples` cuts them into rows.

    Raises:
        DataError: It is empty, or its length is no multiple of 4.
    """
    if not body or len(body) % 4:
        raise DataError(f"a body of float32 numbers has a multiple of 4 bytes, got {len(body)}")
    return np.frombuffer(body, dtype="<f4").astype(np.float32)  # a copy: torch wants to be able to write


def plain(value: str) -> object:
    """Return the value of a query parameter: a number, or true or false, where it is one.

    >>> plain("3"), plain("abc")
    (3, 'abc')
    """
    if value in ("true", "false"):
        return value == "true"
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
