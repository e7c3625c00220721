"""Segments: most rows of a gallery, in files that are made once, checked by sha256 when they are opened, and mapped.

A segment is a folder of

```
vectors.npy  [N, D] float32 of length 1; rows of fewer coordinates end in zeros
rows.npy     [2, N] int64: sequence numbers, rising, and for each row a place in the list `spaces` of the facts
ends.npy     [2N + 1] int64: where ids and payloads begin and end in text.npy
text.npy     UTF-8 bytes: id and payload of the first row, of the second ...
index.faiss  a FAISS index over the vectors, unless the kind is `flat`
```

Everything in it was derived from the SQLite file, which also holds the facts (kind, spaces, sizes, checksums). A
segment that is not exactly what the facts say is refused, and its rows are read from there again. So nothing is
flushed to the disk here: after a power cut, a torn file costs time, not rows.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.errors import ArtifactError
from lifelong.gallery.indexes import Integers, Quick, kind_for
from lifelong.gallery.inputs import Floats
from lifelong.gallery.packed import Bytes, Packed
from lifelong.gallery.parts import Part

ARRAYS = ("vectors", "rows", "ends", "text")
INDEX = "index.faiss"
COPIED = 4096  # rows at once: short enough for readers to get their turn


def write(folder: Path, sources: Sequence[Part], names: Sequence[str], widths: Sequence[int], choice: str) -> Any:  # noqa: ANN401
    """Write the living rows of `sources` as one segment into `folder`, and return its facts.

    Args:
        folder: Must not be there, or is left over.
        sources: Parts with rows.
        names: Id of each space, by its number.
        widths: Its width, likewise.
        choice: `auto` or a kind of index.

    Raises:
        OSError: There is no room for it; what was written of it is gone again.
        RuntimeError: The same, from FAISS.
    """
    beside = folder.with_name(f".{folder.name}")
    for old in (beside, folder):
        shutil.rmtree(old, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        facts = _written(beside, sources, names, widths, choice)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return facts


def _written(beside: Path, sources: Sequence[Part], names: Sequence[str], widths: Sequence[int], choice: str) -> Any:  # noqa: ANN401
    """Write the files of a segment and return its facts."""
    rows = [np.flatnonzero(part.alive) for part in sources]
    seqs = np.concatenate([part.seqs[some] for part, some in zip(sources, rows, strict=True)])
    codes = np.concatenate([part.codes[some] for part, some in zip(sources, rows, strict=True)])
    order = np.argsort(seqs)
    present, places = np.unique(codes[order], return_inverse=True)
    shape = len(order), max(widths[code] for code in present)
    kind = kind_for(choice, len(order))
    vectors = _room(beside / "vectors.npy", shape, np.float32)
    _fill(vectors, sources, rows, np.argsort(order))
    text, ends = _texts(sources, rows, order)
    for name, array in (("rows", np.stack([seqs[order], places.reshape(-1)])), ("ends", ends), ("text", text)):
        _room(beside / f"{name}.npy", array.shape, array.dtype)[...] = array
    facts = {"kind": kind, "spaces": [names[code] for code in present], "rows": shape[0], "width": shape[1]}
    if kind != "flat":
        own = np.array([widths[code] for code in present])[places.reshape(-1)]
        scales = _scales(vectors, own)
        scaled: Floats = vectors.view(np.ndarray)
        if scales:
            scaled = scaled * np.array([scales[int(width)] for width in own], np.float32)[:, None]
        quick = Quick.built(kind, scaled)
        quick.write(beside / INDEX)
        facts |= {"effort": quick.effort, "recall": round(quick.recall, 4), "scales": scales}
    facts["files"] = {path.name: _fingerprint(path) for path in sorted(beside.iterdir())}
    return facts


def read(folder: Path, facts: Any, codes: Sequence[int], *, verify: bool = True) -> Part:  # noqa: ANN401 - JSON
    """Return a segment as a part, all of its rows alive.

    Args:
        folder: Of the segment.
        facts: What `write` returned.
        codes: Number of each space of the facts.
        verify: Read every file and compare it with its checksum.

    Raises:
        ArtifactError: A file is missing, cut short, altered or foreign; the message names it.
    """
    if verify:
        for name, expected in facts["files"].items():
            check(folder / name, expected)
    quick = None
    try:
        vectors, rows, ends, text = (_mapped(folder / f"{name}.npy") for name in ARRAYS)
        if facts["kind"] != "flat":
            scales = {int(width): scale for width, scale in facts.get("scales", {}).items()}
            quick = Quick.read(folder / INDEX, facts["kind"], facts["effort"], facts["recall"], scales)
    except (OSError, RuntimeError, ValueError) as error:  # gone since it was checked, or no memory to map it
        raise ArtifactError(f"segment {folder} cannot be mapped: {str(error).splitlines()[0]}") from error
    own = rows[1] if list(codes) == list(range(len(codes))) else np.array(codes)[rows[1]]
    ids, texts = (Packed(text, ends, which) for which in (0, 1))
    alive = np.ones(len(vectors), bool)
    return Part(vectors, rows[0], own, alive, ids, texts, frozenset(codes), quick=quick, name=folder.name)


def check(path: Path, expected: Any) -> None:  # noqa: ANN401 - JSON
    """Raise ArtifactError, with the name, unless a file has the expected size and checksum."""
    try:
        found = _fingerprint(path)
    except OSError as error:
        raise ArtifactError(f"segment file {path} cannot be read: {error.strerror}") from error
    if found != expected:
        what = "size" if found[0] != expected[0] else "checksum"
        raise ArtifactError(f"segment file {path} has another {what} than when it was made")


def leftovers(folder: Path, kept: frozenset[str]) -> Iterator[Path]:
    """Yield what lies in the folder of all segments and is none of those `kept`."""
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if path.name not in kept)


def _fingerprint(path: Path) -> list[Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [file.tell(), digest]


def _mapped(path: Path) -> Any:  # noqa: ANN401 - of several types
    return np.load(path, mmap_mode="r").view(np.ndarray)


def _room(path: Path, shape: tuple[int, ...], dtype: Any) -> Any:  # noqa: ANN401
    """Return a new array in a file that has all its room: writing to a mapped file on a full disk ends the process."""
    made = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return made


def _fill(vectors: Any, sources: Sequence[Part], rows: Sequence[Integers], place: Integers) -> None:  # noqa: ANN401
    """Copy each source's rows to their places, a few at a time."""
    start = 0
    width = vectors.shape[1]
    for part, some in zip(sources, rows, strict=True):
        for first in range(0, len(some), COPIED):
            few = some[first : first + COPIED]
            targets = place[start + first : start + first + len(few)]
            shared = min(width, part.width)  # what a mixed part has beyond the widest living row is zeros
            vectors[targets, :shared] = part.vectors[few, :shared]
        start += len(some)


def _scales(vectors: Any, widths: Integers) -> dict[int, float]:  # noqa: ANN401
    """Return what rows of each width are multiplied by in an index, so that its order suits an average query.

    A row is scored by the cosine with the query's first coordinates, an index knows products with all of it: the
    scale makes up for how much shorter these coordinates are than the whole. The widest rows stand for queries.
    """
    every = [int(width) for width in np.unique(widths)]
    if len(every) < 2:
        return {}
    sample = vectors[np.flatnonzero(widths == every[-1])[:COPIED]]
    lengths = [float(np.linalg.norm(sample[:, :width], axis=1).mean()) for width in every]
    return {width: 1 / max(length, 0.01) for width, length in zip(every, lengths, strict=True)}


def _texts(sources: Sequence[Part], rows: Sequence[Integers], order: Integers) -> tuple[Bytes, Integers]:
    """Return ids and payloads of all rows, in `order`, as bytes and ends."""
    texts, begins, sizes, offset = [], [], [], 0
    for part, some in zip(sources, rows, strict=True):
        text, ends = part.ids.packed() if isinstance(part.ids, Packed) else _pack(part)
        begins.append(offset + np.stack([ends[2 * some], ends[2 * some + 1]], axis=1))
        sizes.append(np.stack([ends[2 * some + 1] - ends[2 * some], ends[2 * some + 2] - ends[2 * some + 1]], axis=1))
        texts.append(text)
        offset += len(text)
    begin, size = np.concatenate(begins)[order].reshape(-1), np.concatenate(sizes)[order].reshape(-1)
    ends = np.concatenate([[0], np.cumsum(size)])
    text, chosen = np.concatenate(texts), np.empty(int(ends[-1]), np.uint8)
    for first in range(0, len(begin), COPIED):
        few = slice(first, first + COPIED)
        low, high = ends[first], ends[min(first + COPIED, len(begin))]
        chosen[low:high] = text[np.repeat(begin[few] - ends[:-1][few], size[few]) + np.arange(low, high)]
    return chosen, ends


def _pack(part: Part) -> tuple[Bytes, Integers]:
    strings = [text.encode() for row in range(len(part)) for text in (part.ids[row], part.texts[row])]
    ends = np.cumsum([0, *map(len, strings)])
    return np.frombuffer(b"".join(strings), np.uint8), ends
