"""From the files of a gallery to its rows in memory: segments where they are sound, SQLite for all the rest."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import final

import numpy as np

from lifelong.errors import ArtifactError
from lifelong.gallery import segments
from lifelong.gallery.base import Row
from lifelong.gallery.indexes import Integers
from lifelong.gallery.inputs import Floats
from lifelong.gallery.memory import Memory
from lifelong.gallery.parts import Part
from lifelong.gallery.store import Catalog, Facts, Record, Store

log = logging.getLogger("lifelong.gallery")


@final
class Loader:
    """Reads a gallery, and what is new in it.

    Args:
        store: The truth.
        folder: Of all segments.

    `refused` names the segments that were damaged.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self.refused: set[str] = set()

    def load(self, seal: int) -> tuple[Memory, Catalog]:
        """Return all rows.

        Raises:
            ArtifactError: A row in SQLite is damaged.
        """
        memory = Memory(seal)
        with self._store.snapshot():
            catalog = self._store.catalog()
            self._spaces(memory)
            living = self._store.living()
            memory.adopt(self._parts(memory, catalog.segments), living=living)
            self._take(memory, np.setdiff1d(living, memory.covered(), assume_unique=True))
            memory.sequence = self._store.sequence()
        return memory, catalog

    def follow(self, memory: Memory, known: Catalog) -> tuple[Memory, Catalog]:
        """Bring `memory` up to date; returns another one if it is too far behind.

        New segments are used if all of them are sound; otherwise what is in memory goes on being used.
        """
        with self._store.snapshot():
            catalog = self._store.catalog()
            if memory.sequence >= catalog.purged:
                self._spaces(memory)
                dead = self._store.ended(memory.sequence)
                for page in self._store.since(memory.sequence):
                    self._put(memory, page)
                memory.bury(dead)
                memory.sequence = self._store.sequence()
        if memory.sequence < catalog.purged:
            return self.load(memory.seal)
        held = {part.name for part in memory.segments}
        new = {name: facts for name, facts in catalog.segments.items() if name not in held}
        if catalog.generation == known.generation or len(parts := self._parts(memory, new)) < len(new):
            return memory, known
        memory.adopt(parts, held - set(catalog.segments))
        return memory, catalog

    def row(self, record: Record) -> Row:
        """Return a row as it was given."""
        seq, name, space, dim, _, text = record
        return Row(name, seq, space, self._vectors([record], dim)[0], json.loads(text))

    def _parts(self, memory: Memory, listed: Mapping[str, Facts]) -> list[Part]:
        parts = []
        for name, facts in listed.items():
            try:
                if name not in self.refused:
                    codes = [memory.code(space) for space in facts["spaces"]]
                    parts.append(segments.read(self._folder / name, facts, codes))
            except ArtifactError as error:
                if self._store.lists(name):  # otherwise its writer has replaced and deleted it meanwhile
                    self.refused.add(name)
                    log.warning("%s; its rows are read from %s instead", error, self._store.path.name)
        return parts

    def _spaces(self, memory: Memory) -> None:
        spaces = self._store.spaces()
        memory.widths.update({name: dim for name, (dim, _) in spaces.items()})
        memory.families.update({name: family for name, (_, family) in spaces.items()})

    def _take(self, memory: Memory, missing: Integers) -> None:
        if not len(missing):
            return
        for page in self._store.since(int(missing[0]) - 1):
            wanted = np.isin([record[0] for record in page], missing, assume_unique=True).tolist()
            self._put(memory, itertools.compress(page, wanted))

    def _put(self, memory: Memory, page: Iterable[Record]) -> None:
        for space, group in itertools.groupby(page, key=lambda record: record[2]):
            records = list(group)
            vectors = self._vectors(records, memory.widths.get(space, 0))
            memory.put([r[1] for r in records], [r[0] for r in records], space, vectors, [r[5] for r in records])

    def _vectors(self, records: list[Record], dim: int) -> Floats:
        """Return the vectors `[N, D]` of records of one space."""
        sizes = np.array([len(record[4] or b"") for record in records])
        right = (sizes == 4 * dim) & np.array([0 < dim == record[3] for record in records])
        if right.all():
            vectors = np.frombuffer(b"".join(record[4] for record in records), "<f4").reshape(-1, dim)
            right = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
            if right.all():
                return vectors.astype(np.float32)
        name = records[int(right.argmin())][1]
        raise ArtifactError(f"{self._store.path} is damaged at id {name!r}; restore it from a copy")
