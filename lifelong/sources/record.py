"""One labelled sample as bytes, the same in every source: no pickle, checked before it is believed.

```
LLR1 | length of the header, u32 little-endian | header, JSON | values, little-endian, last axis fastest
```
The header is `{"dtype": "float32", "shape": [784], "y": 3}`, with `"task": 2` where the producer knows it. A label is
a string or an integer. The sample's id is not in here: it lies where the source keeps ids.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import torch
from torch import Tensor

from lifelong import files
from lifelong.errors import DataError, LifelongError, TooLarge
from lifelong.labels import Label, plain_label
from lifelong.sources.base import LIMIT

BEGINNING = 160  # bytes of what is no record that are shown: a source may have written there what was wrong
MAGIC = b"LLR1"
HEADER = 1 << 16  # bytes of a header at most
HEADERS = 1024  # different ones that are remembered
KINDS = {"float32": 4, "float64": 8, "float16": 2, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8}


@final
@dataclass(frozen=True, slots=True)
class Sample:
    """What a record says.

    Args:
        x: One input `[...]`.
        y: Its label.
        task: Task or declared part of the stream it belongs to, >= 0; -1 is unknown.
    """

    x: Tensor
    y: Label
    task: int = -1


def encode(x: Tensor | np.ndarray, y: object, task: int = -1, limit: int = LIMIT) -> bytes:
    """Return the record of one sample.

    Args:
        x: One input `[...]`.
        y: A string or an integer.
        task: See `Sample`.
        limit: Bytes a record may take.

    Raises:
        DataError: The label or the type of the values cannot be written.
        TooLarge: The record is over the limit.

    >>> decode(encode(torch.tensor([1.0, 2.0]), "cat"))
    Sample(x=tensor([1., 2.]), y='cat', task=-1)
    """
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if array.dtype.name not in KINDS:
        raise DataError(f"a record holds values of {', '.join(KINDS)}, got {array.dtype}; convert them first")
    header = {"dtype": array.dtype.name, "shape": list(array.shape), "y": plain_label(y)}
    text = files.canonical_json(header if task < 0 else {**header, "task": int(task)})
    values = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    record = MAGIC + len(text).to_bytes(4, "little") + text + values
    if len(record) > limit:
        raise TooLarge(f"a record of {len(record)} bytes is over the limit of {limit}; send smaller samples")
    return record


def decode(record: bytes, limit: int = LIMIT) -> Sample:
    """Return what a record says.

    Raises:
        TooLarge: It is over the limit.
        DataError: It is no record, is cut short, or its header does not fit its values.
    """
    if len(record) > limit:
        raise TooLarge(f"the record is over the limit of {limit} bytes; send smaller samples or raise the limit")
    if record[:4] != MAGIC or len(record) < 8:
        raise DataError(f"not a record: it begins with {bytes(record[:BEGINNING])!r}, not {MAGIC!r}")
    size = int.from_bytes(record[4:8], "little")
    if size > HEADER or 8 + size > len(record):
        raise DataError(f"the header is said to take {size} bytes of a record of {len(record)}; it is cut short")
    try:
        kind, shape, label, task = _header(record[8 : 8 + size])
    except LifelongError as error:
        raise DataError(f"a damaged record: {error}") from error
    values = memoryview(record)[8 + size :]
    if math.prod(shape) * KINDS[kind] != len(values):  # before anything is made: a header may announce any size
        raise DataError(f"a damaged record: {len(values)} bytes of values are not {kind} of shape {list(shape)}")
    array = np.frombuffer(values, np.dtype(kind).newbyteorder("<")).reshape(shape)
    native = array.astype(kind) if sys.byteorder == "big" else array.copy()
    return Sample(torch.from_numpy(native), label, task)


@lru_cache(HEADERS)
def _header(text: bytes) -> tuple[str, tuple[int, ...], Label, int]:
    """Return type, shape, label and task; parsed once for all records of a kind, for it takes longer than all else."""
    header, known = files.parse_json(text), {"dtype", "shape", "y", "task"}
    if not isinstance(header, dict) or set(header) - known or not known - {"task"} <= set(header):
        raise DataError("its header needs dtype, shape and y, may have task, and has nothing else")
    kind, shape, task = header["dtype"], header["shape"], header.get("task", -1)
    if (
        not isinstance(kind, str)
        or kind not in KINDS
        or not isinstance(shape, list)
        or not all(type(n) is int and n >= 0 for n in shape)
    ):
        raise DataError(f"it has dtype {kind!r} and shape {shape!r}")
    if type(task) is not int or not -1 <= task < 2**63:
        raise DataError(f"its task is {task!r}, not an integer")
    return kind, tuple(shape), plain_label(header["y"]), task
