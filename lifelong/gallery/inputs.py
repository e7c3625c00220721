"""What callers hand to a gallery, checked at the door: ids, vectors, payloads and conditions."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lifelong.errors import DataError, SpaceError
from lifelong.gallery.base import Payload, Row, Value, Vectors, Where
from lifelong.types import Space

Token = tuple[bool, Value]
Condition = tuple[tuple[str, Token], ...]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]

_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def names(ids: Sequence[str | int]) -> list[str]:
    """Return ids as strings, integers as decimals.

    Raises:
        DataError: Something is neither a string nor an integer, is empty, or is no valid text.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise DataError(f"ids must be a sequence of ids, got the single {ids!r}; put it into a list")
    return [_name(i) for i in ids]


def distinct(ids: list[str]) -> list[str]:
    """Return `ids`, or raise DataError if one occurs twice."""
    if len(set(ids)) < len(ids):
        twice = next(i for i, times in Counter(ids).items() if times > 1)
        raise DataError(f"ids must differ within one call, got {twice!r} twice; add it once")
    return ids


def checked(space: Space) -> Space:
    """Return `space`, or raise SpaceError if it is no `Space`."""
    if not isinstance(space, Space):
        raise SpaceError(f"space must be a lifelong.types.Space, got {space!r}; take it from the model's snapshot")
    return space


def vectors(values: Vectors, space: Space, what: str = "vectors") -> Floats:
    """Return `values` as contiguous float32 `[N, space.dim]`.

    Raises:
        DataError: They are not floating point, of another shape, not finite, or a row is zero.
    """
    array = _shaped(values, space, what)
    if not np.isfinite(array).all():
        finite = np.isfinite(array).all(axis=1)
        raise DataError(f"{what} must be finite, got NaN or infinity in row {int(finite.argmin())}; check the model")
    filled = array.any(axis=1)
    if not filled.all():
        raise DataError(f"{what} need a direction, got only zeros in row {int(filled.argmin())}; leave it out")
    return array


def added(
    ids: Sequence[str | int], values: Vectors, space: Space, payload: Sequence[Payload] | None
) -> tuple[list[str], Floats, list[str]]:
    """Return ids, vectors `[N, D]` and payloads as JSON of rows that are to be stored, or raise what is wrong."""
    known = distinct(names(ids))
    array = vectors(values, checked(space))
    if len(array) != len(known):
        raise DataError(f"need one vector for each id, got {len(known)} ids and {len(array)} vectors")
    return known, array, texts(payload, known)


def queries(values: Vectors, space: Space) -> Doubles:
    """Return queries `[N, space.dim]` at length 1 in float64, or raise what is wrong with them; see `vectors`."""
    array = _shaped(values, space, "queries")
    wide = array.astype(np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide))  # of float32 numbers: it neither overflows nor becomes zero
    if not all(0 < one < math.inf for one in length.tolist()):
        vectors(array, space, "queries")
    wide /= length[:, None]
    return wide


def renewed(rows: Sequence[Row], values: Vectors, space: Space) -> tuple[list[str], Floats, list[str]]:
    """Return ids, new vectors `[N, D]` and payloads as JSON of rows that were read, or raise what is wrong."""
    return added([row.id for row in rows], values, space, [row.payload for row in rows])


def readable(space: Space, families: Mapping[str, str]) -> None:
    """Raise `SpaceError` if a space that `space` reads, itself included, is stored with another family.

    Args:
        space: Of the queries.
        families: Of stored spaces, by id.
    """
    foreign = [name for name in space.reads if families.get(name, space.family) != space.family]
    if foreign:
        name = min(foreign)
        raise SpaceError(
            f"space {name!r} is stored with family={families[name]!r}, got queries of space {space.id!r} with "
            f"family={space.family!r}; only vectors of one family may be compared"
        )


def unit(values: Floats) -> Doubles:
    """Return the rows of `values` `[N, D]`, none of them zero, at length 1 in float64."""
    wide = values.astype(np.float64)
    length: Doubles = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    wide /= length[:, None]
    return wide


def texts(payload: Sequence[Payload] | None, ids: list[str]) -> list[str]:
    """Return one JSON text for each id.

    Raises:
        DataError: Another number of payloads than ids, or one that is no dict of plain JSON values.
    """
    if payload is None:
        return ["{}"] * len(ids)
    if not isinstance(payload, Sequence) or len(payload) != len(ids):
        got = len(payload) if isinstance(payload, Sequence) else f"a single {type(payload).__name__}"
        raise DataError(f"need a list of one payload dict for each of {len(ids)} ids, got {got}")
    return [_text(name, value) for name, value in zip(ids, payload, strict=True)]


def condition(where: Where | None) -> Condition:
    """Return `where` in the form that `token` compares.

    Raises:
        DataError: It is no mapping from payload keys to plain finite values.
    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise DataError(f"where must map payload keys to values, got {where!r}")
    for key, value in where.items():
        plain = value is None or isinstance(value, str | int | float)
        if not isinstance(key, str) or not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise DataError(f"where takes keys with string, number, boolean or None values, got {key!r}: {value!r}")
    return tuple((key, token(value)) for key, value in where.items())


def token(value: Value) -> Token:
    """Return what equal payload values share: 1 equals 1.0, but True does not."""
    return isinstance(value, bool), value


def count(k: int, name: str = "k") -> int:
    """Return `k`, or raise DataError unless it is an integer of 1 or more."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise DataError(f"{name} must be an integer of at least 1, got {k!r}")
    return int(k)


def page(k: int, offset: int) -> slice:
    """Return which places of a ranking are wanted, or raise DataError unless `k` >= 1 and `offset` >= 0."""
    if isinstance(offset, bool) or not isinstance(offset, int | np.integer) or offset < 0:
        raise DataError(f"offset must be an integer of at least 0, got {offset!r}")
    return slice(int(offset), int(offset) + count(k))


def position(offset: object) -> tuple[str, int] | None:
    """Return name and position of a stream, None for None, or raise DataError if it is neither."""
    match offset:
        case None:
            return None
        case (str(name), int(reached)) if not isinstance(reached, bool) and -(2**63) <= reached < 2**63:
            return _name(name), reached
    raise DataError(f"an offset is the name of a stream and a whole number, got {offset!r}")


def _name(value: object) -> str:
    if not isinstance(value, str | int) and (
        isinstance(value, np.generic) or (isinstance(value, Tensor) and value.dim() == 0)
    ):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"an id must be a string or an integer, got {value!r}; convert it first")
    name = str(value)
    if not name or "\x00" in name or not _encodable(name):
        raise DataError(f"an id must be non-empty text without NUL or lone surrogates, got {name!r}")
    return name


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shaped(values: Vectors, space: Space, what: str) -> Floats:
    """Return `values` as contiguous float32 `[N, space.dim]`, whatever numbers they hold."""
    array = _array(values, what)
    if array.ndim != 2 or array.shape[1] != space.dim:
        raise DataError(f"{what} of space {space.id!r} need shape [N, {space.dim}], got {list(array.shape)}")
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):  # a float64 too large for float32 is reported as infinite
            array = array.astype(np.float32)
    return np.ascontiguousarray(array)


def _array(values: Vectors, what: str) -> np.ndarray[Any, Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{what} must be one array [N, D], got rows of different lengths") from error
    if array.dtype.kind != "f":
        raise DataError(f"{what} must be floating point, got {array.dtype}; convert them first")
    return array


def _text(name: str, value: Payload) -> str:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DataError(f"the payload of id {name!r} must be a dict with string keys, got {value!r}")
    try:
        return _JSON.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"the payload of id {name!r} must hold plain JSON values: {error}") from error
