"""From JSON values to checked values: everything a client can get wrong is told apart here, before a model runs.

Pure functions of plain Python values; the first thing that is wrong raises a `DataError` (HTTP 400).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pydantic_core

from lifelong.errors import DataError

LONGEST_ID = 256  # characters
LARGEST_PAYLOAD = 16 * 1024  # bytes of JSON, per row
MOST_CONDITIONS = 16  # keys of a `where`
Scalar = str | int | float | bool | None


def document(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body` (strict UTF-8, no NaN, no deep nesting).

    Raises:
        DataError: It is not JSON, or not an object.
    """
    try:
        value = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise DataError(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"the body must be a JSON object like {{...}}, got {_kind(value)}")
    return value


def samples(x: object, shape: Sequence[int], most: int, name: str = "x") -> npt.NDArray[np.float32]:
    """Return `[N, *shape]` float32 of nested lists of numbers.

    Args:
        x: N samples, or one sample; each of `shape`, or flat with as many numbers.
        shape: Shape of one sample.
        most: Largest N.
        name: Of the field, for messages.

    Raises:
        DataError: Not numbers, ragged, empty, not finite, too many rows, or another shape.

    >>> samples([[0, 1], [2, 3], [4, 5]], [2], most=3).shape
    (3, 2)
    """
    shape = tuple(shape)
    array = _numbers(x, name)
    size = math.prod(shape)
    if array.shape == shape or array.shape == (size,):
        array = array.reshape(1, *shape)
    elif isinstance(x, np.ndarray) and array.ndim == 1 and array.size % size == 0:
        array = array.reshape(-1, *shape)  # bytes without a shape: as many samples as they fill
    if array.shape[1:] not in (shape, (size,)):
        raise DataError(f"{name} must hold samples of shape {_sizes(shape, size)}, got {list(array.shape)}")
    if len(array) > most:
        raise DataError(f"{name} may hold at most {most} samples, got {len(array)}; send several requests")
    rows = array.reshape(-1, *shape)
    if rows.dtype != np.float32 or not rows.flags.c_contiguous:
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(rows, dtype=np.float32)
    # A product costs a tenth of a look at each number; it may overflow where none of them is infinite.
    if not math.isfinite(np.vdot(rows, rows)) and not np.isfinite(rows).all():
        raise DataError(f"{name} must hold finite float32 numbers, got a value beyond their range")
    return rows


def integer(value: object, name: str, low: int, high: int) -> int:
    """Return `value` if it is a whole number in `low..high`.

    Raises:
        DataError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise DataError(f"{name} must be a whole number in {low}..{high}, got {_told(value)}")
    return value


def share(value: object, name: str) -> float:
    """Return `value` if it is a number in 0..1.

    Raises:
        DataError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"{name} must be a number in 0..1, got {_told(value)}")
    return float(value)


def boolean(value: object, name: str) -> bool:
    """Return `value` if it is true or false, else raise `DataError`."""
    if not isinstance(value, bool):
        raise DataError(f"{name} must be true or false, got {_told(value)}")
    return value


def note(value: object) -> str:
    """Return a text for people, on one line, of at most 256 characters, else raise `DataError`."""
    if not isinstance(value, str) or len(value) > LONGEST_ID:
        raise DataError(f"why must be a text of at most {LONGEST_ID} characters, got {_told(value)}")
    return " ".join(value.split())


def identifiers(ids: object, most: int) -> list[str | int]:
    """Return the distinct ids in a list of 1..`most` strings or 64-bit integers.

    Raises:
        DataError: Not such a list; the message says which entry is wrong.
    """
    listed = entries(ids, "ids", most)
    seen: set[str] = set()
    for at, value in enumerate(listed):
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise DataError(f"ids[{at}] must be a string or an integer, got {_told(value)}")
        if isinstance(value, str) and not 1 <= len(value) <= LONGEST_ID:
            raise DataError(f"ids[{at}] must have 1..{LONGEST_ID} characters, got {len(value)}")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise DataError(f"ids[{at}] must fit 64 bits; send longer ids as strings")
        if str(value) in seen:
            raise DataError(f"ids[{at}] is there twice: {_told(value)}")
        seen.add(str(value))
    return listed


def payloads(payload: object, count: int) -> list[dict[str, Any]] | None:
    """Return one JSON object per id, or None where none was given.

    Raises:
        DataError: Not `count` objects, or one is larger than `LARGEST_PAYLOAD` bytes.
    """
    if payload is None:
        return None
    if not isinstance(payload, list) or len(payload) != count:
        got = f"{len(payload)}" if isinstance(payload, list) else _kind(payload)
        raise DataError(f"payload must be a list of {count} objects, one per id, got {got}")
    for at, value in enumerate(payload):
        if not isinstance(value, dict):
            raise DataError(f"payload[{at}] must be an object like {{...}}, got {_kind(value)}")
        try:
            size = len(json.dumps(value, allow_nan=False))
        except ValueError:
            raise DataError(f"payload[{at}] holds a number beyond the range of JSON") from None
        if size > LARGEST_PAYLOAD:
            raise DataError(f"payload[{at}] may have {LARGEST_PAYLOAD} bytes, got {size}; store a reference instead")
    return payload


def conditions(where: object) -> dict[str, Scalar] | None:
    """Return what a payload must equal, key by key, or None where nothing was asked.

    Raises:
        DataError: Not an object of plain values, or too many keys.
    """
    if where is None:
        return None
    if not isinstance(where, dict):
        raise DataError(f"where must be an object of payload keys and values, got {_kind(where)}")
    if len(where) > MOST_CONDITIONS:
        raise DataError(f"where may have at most {MOST_CONDITIONS} keys, got {len(where)}")
    for key, value in where.items():
        if not isinstance(value, str | int | float | bool | None) or (isinstance(value, float) and math.isinf(value)):
            raise DataError(f"where[{_told(key)}] must be a string, a finite number, true, false or null")
    return where


def text(value: object, name: str) -> str:
    """Return `value` if it is a short string.

    Raises:
        DataError: It is not.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_ID:
        raise DataError(f"{name} must be a string of 1..{LONGEST_ID} characters, got {_told(value)}")
    return value


def _numbers(x: object, name: str) -> npt.NDArray[Any]:
    if isinstance(x, np.ndarray):
        if not x.size:
            raise DataError(f"{name} must hold at least one number, got an empty array")
        return x
    if not isinstance(x, list):
        raise DataError(f"{name} must be a list of numbers or of lists of numbers, got {_kind(x)}")
    kinds = _leaves(x)
    if not kinds:
        raise DataError(f"{name} must hold at least one number, got an empty list")
    if kinds - {int, float}:
        wrong = ", ".join(sorted(_KINDS.get(kind, kind.__name__) for kind in kinds - {int, float}))
        raise DataError(f"{name} must hold numbers only, got also: {wrong}")
    try:
        return np.array(x, dtype=np.float64)
    except OverflowError:
        raise DataError(f"{name} holds an integer beyond the range of numbers") from None
    except ValueError:
        raise DataError(f"{name} must be rectangular: all lists of one level need the same length") from None


def _leaves(value: list[Any]) -> set[type]:
    """Types of all entries that are not lists; `np.array` alone would take true for 1."""
    kinds = set(map(type, value))
    if list in kinds:
        kinds.discard(list)
        return kinds.union(*(_leaves(entry) for entry in value if isinstance(entry, list)))
    return kinds


def entries(value: object, name: str, most: int) -> list[Any]:
    """Return `value` if it is a list of 1..`most` entries, else raise `DataError`."""
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        got = f"{len(value)} entries" if isinstance(value, list) else _kind(value)
        raise DataError(f"{name} must be a list of 1..{most} entries, got {got}")
    return value


_KINDS = {
    str: "a string",
    bool: "true or false",
    type(None): "null",
    dict: "an object",
    list: "a list",
    int: "a number",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a number")


def _told(value: object) -> str:
    """Quote a client's value, shortened."""
    shown = repr(value) if isinstance(value, str | float | bool | None) or _small(value) else _kind(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _small(value: object) -> bool:
    return isinstance(value, int) and abs(value) < 10**18


def _sizes(shape: tuple[int, ...], size: int) -> str:
    return f"{list(shape)}" if len(shape) == 1 else f"{list(shape)} (or flat, [{size}])"
