"""Rows of a gallery in PostgreSQL: how vectors, payloads and conditions are written, and read again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from lifelong.errors import DataError
from lifelong.gallery.base import Row, Value
from lifelong.gallery.indexes import Integers
from lifelong.gallery.inputs import Condition, Floats

ITEM = "id, seq, space, payload, filters, scale, vec"
TAME = (1e-15, 1e15)  # lengths whose squares are far from float32's limits


def scaled(vectors: Floats) -> tuple[Floats, Integers]:
    """Return vectors `[N, D]` with lengths that pgvector can square, and `[N]` by which powers of two they differ.

    Raises:
        DataError: A row holds numbers so far apart that no common factor does.
    """
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    wild = (length < TAME[0]) | (length > TAME[1])
    powers: Integers = np.where(wild, np.frexp(length)[1], 0).astype(np.int64)
    if not wild.any():
        return vectors, powers
    made = np.ldexp(vectors, -powers[:, None]).astype(np.float32)
    same = (np.ldexp(made, powers[:, None]) == vectors).all(axis=1)
    if not same.all():
        raise DataError(
            f"vectors must hold numbers of similar size, got tiny and huge ones in row {int(same.argmin())}"
        )
    return made, powers


def filters(text: str) -> str:
    """Return, of a payload as JSON, the keys with plain values, in the form that `wanted` asks for."""
    if text == "{}":
        return text
    plain = {key: value for key, value in json.loads(text).items() if not isinstance(value, list | dict)}
    return json.dumps({_safe(key): _value(value) for key, value in plain.items()})


def wanted(condition: Condition) -> str:
    """Return what `filters` must contain."""
    return json.dumps({_safe(key): _value(value) for key, (_, value) in condition})


def row(found: tuple[Any, ...]) -> Row:
    """Return the row of (id, seq, name of the space, payload, scale, vector)."""
    name, seq, space, text, scale, vector = found
    return Row(name, seq, space, np.ldexp(vector, scale).astype(np.float32) if scale else vector, json.loads(text))


def _value(value: Value) -> Value:
    return _safe(value) if isinstance(value, str) else value


def _safe(text: str) -> str:
    """Return text that jsonb can hold: another one for each, and the same as long as there is nothing odd in it."""
    return text.replace("\\", "\\\\").replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
