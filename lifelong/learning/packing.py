"""A nested state as tensors by path and plain values, and back."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lifelong import files
from lifelong.errors import DataError
from lifelong.learning.patched import Base, Patched

MARK, PARTS = "$tensor", "$parts"

State = dict[str, Any]


def pack(state: State, copy: bool = True, bases: dict[str, Patched] | None = None) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a nested state by path, and the rest with a mark where each tensor was.

    Args:
        state: Nested dicts and lists of tensors and plain values.
        copy: Of every tensor; else only of those that share memory with others, or are not contiguous on the CPU.
        bases: Takes the tensors that come in parts, by path; their changed rows are among the others. Without it they
            are put together.

    Raises:
        DataError: A key is no string, or the mark itself. (A value that is neither a tensor nor plain is refused when
            the rest is written as JSON.)
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()  # where the memory of those that were not copied begins

    def walk(value: object, path: str) -> object:
        if isinstance(value, Patched) and bases is not None:
            bases[path] = value
            parts = {} if value.wish else {"rows": value.rows, "values": value.values}  # else it becomes a base
            return {PARTS: path, "size": value.size, **{key: walk(t, f"{path}/{key}") for key, t in parts.items()}}
        if isinstance(value, Patched):
            value = value.whole()
        if isinstance(value, Tensor):
            mine = value.detach().cpu()
            memory = mine.untyped_storage()
            alone = memory.nbytes() == mine.nbytes and memory.data_ptr() not in seen
            tensors[path] = mine if alone and mine.is_contiguous() and not copy else mine.clone().contiguous()
            seen.add(memory.data_ptr())
            return {MARK: path}
        if isinstance(value, dict):
            if odd := [key for key in value if not isinstance(key, str) or key in (MARK, PARTS)]:
                raise DataError(f"the state has the key {odd[0]!r} in {path or 'its top'}; use other names")
            return {key: walk(item, f"{path}/{_escaped(key)}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item, f"{path}/{i}") for i, item in enumerate(value)]
        return value

    return tensors, walk(state, "")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")  # as in a JSON pointer: two keys never make the same path


def unpack(tensors: dict[str, Tensor], plain: Any, bases: Mapping[str, Tensor] | None = None) -> Any:  # noqa: ANN401
    """Return the nested state that `pack` took apart (tuples come back as lists, tensors in parts as one)."""
    if isinstance(plain, dict):
        if set(plain) == {MARK}:
            return tensors[plain[MARK]]
        if PARTS in plain:
            base = (bases or {})[plain[PARTS]]
            if "rows" not in plain:
                return base
            rows, values = tensors[plain["rows"][MARK]], tensors[plain["values"][MARK]]
            return Patched(Base(base), rows, values, plain["size"]).whole()
        return {key: unpack(tensors, value, bases) for key, value in plain.items()}
    if isinstance(plain, list):
        return [unpack(tensors, value, bases) for value in plain]
    return plain


def copied(state: State) -> State:
    """Return a nested state of plain values and of copies of all its tensors."""
    found: State = unpack(*pack(state))
    return found


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> tuple[str, int]:
    """Write a file of tensors, flushed, straight from their memory; return its sha256 and its size in bytes.

    Raises:
        OSError: It could not be written; a part of it may be there.
    """
    try:
        safetensors.torch.save_file(tensors, path)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error
    path.chmod(0o644)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return files.sha256(path), path.stat().st_size
