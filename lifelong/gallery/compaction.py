"""What is made into segments when: plans, and the thread that carries them out beside the requests."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, final

from lifelong.gallery import segments
from lifelong.gallery.indexes import Integers, kind_for
from lifelong.gallery.inputs import Token
from lifelong.gallery.memory import Memory
from lifelong.gallery.parts import Part
from lifelong.gallery.store import Catalog, Store

FILLED = 4  # full buffers that become a segment
GROWTH = 3  # a new segment takes in an older one of up to so many times its rows: about log4(rows) stay
DEAD = 0.3  # share of dead rows from which a segment is made anew
NICENESS = 10  # of the thread that does it
log = logging.getLogger("lifelong.gallery")
Plan = list[list[Part]]
Columns = dict[str, dict[Token, Integers]]
Made = tuple[Any, Columns]  # facts, columns


def plan(memory: Memory, seal: int, choice: str, *, full: bool) -> Plan:
    """Return the parts of each segment that is to be made; parts of similar width share one, whatever their spaces.

    Args:
        memory: All rows.
        seal: Rows of a full buffer.
        choice: `auto` or a kind of index.
        full: Make as few segments as possible, of everything.
    """
    tail = memory.tail(sealed=not full)
    if not full and sum(map(_living, tail)) < FILLED * seal:
        tail = []
    due = {id(part) for part in (*tail, *memory.segments) if not part.name or part.dead > DEAD * len(part)}
    groups = [_group(band, due, full) for band in _bands([*tail, *memory.segments], choice)]
    return [group for group in groups if group and not _settled(group, choice)]


def _group(band: Sequence[Part], due: set[int], full: bool) -> list[Part]:
    """Return what is due, and the segments that are not much larger than that, the smallest first."""
    group = [part for part in band if full or id(part) in due]
    rows = sum(map(_living, group))
    for part in sorted((part for part in band if not full and id(part) not in due and part.name), key=_living):
        if _living(part) > GROWTH * rows:
            break
        group.append(part)
        rows += _living(part)
    return group


def _bands(parts: Sequence[Part], choice: str) -> list[list[Part]]:
    """Return parts that may share a segment.

    Rows narrower than their segment are padded. Lists are searched for each width of their rows, and two indexes take
    longer than two searches of one: so up to twice the width is taken. Comparing with every row takes time by the
    width, in one part or in two, and a graph is walked through rows that are not asked for: those are of one width.
    """
    bands = []
    for band in _near(parts, 0.5):
        lists = kind_for(choice, sum(map(_living, band))) == "ivf"
        bands += [band] if lists else _near(band, 1.0)
    return bands


def _near(parts: Sequence[Part], share: float) -> list[list[Part]]:
    """Return parts in groups in which none is narrower than `share` of the widest."""
    groups: list[list[Part]] = []
    for part in sorted(parts, key=lambda part: -part.width):
        if not groups or part.width < share * groups[-1][0].width:
            groups.append([])
        groups[-1].append(part)
    return groups


def _settled(group: Sequence[Part], choice: str) -> bool:
    """Return whether making this anew would change nothing."""
    (first, *rest) = group
    kind = first.quick.kind if first.quick else "flat"
    return not rest and bool(first.name) and not first.dead and kind == kind_for(choice, len(first))


def _living(part: Part) -> int:
    return len(part) - part.dead


class Owner(Protocol):
    """The gallery, as its compactor sees it."""

    memory: Memory
    catalog: Catalog

    def show(self) -> None:
        """Let readers see the memory as it is now."""


@final
class Compactor:
    """Makes segments of a gallery's rows.

    Args:
        owner: Whose memory it is; looked at and changed only under `mutex`.
        store: The truth.
        folder: Of all segments.
        mutex: Held for every change.
        seal: Rows of a full buffer.
        choice: `auto` or a kind of index.
        background: Start by itself when there is something to do.
    """

    def __init__(
        self,
        owner: Owner,
        store: Store,
        folder: Path,
        mutex: AbstractContextManager[Any],
        seal: int,
        choice: str,
        *,
        background: bool,
    ) -> None:
        self._owner, self._store, self._folder, self._mutex = owner, store, folder, mutex
        self._seal, self._choice, self._background = seal, choice, background
        self._turn = threading.Lock()  # one compaction at a time
        self._thread: threading.Thread | None = None
        self._closing = False
        self._patience = 0  # after a failure: the sequence number before which it is not tried again

    def nudge(self) -> None:
        """Start compacting beside the caller, who holds the mutex, if there is something to do."""
        idle = self._thread is None or not self._thread.is_alive()
        if not (self._background and idle and not self._closing and self._owner.memory.sequence >= self._patience):
            return
        if plan(self._owner.memory, self._seal, self._choice, full=False):
            self._thread = threading.Thread(target=self._work, name="gallery-compaction")
            self._thread.start()

    def run(self, *, full: bool) -> bool:
        """Carry out one plan; return whether there was anything to do."""
        with self._turn:
            with self._mutex:
                memory = self._owner.memory
                groups = [] if self._closing else plan(memory, self._seal, self._choice, full=full)
                names, number, before = memory.names, self._owner.catalog.generation + 1, memory.sequence
                widths = [memory.widths[name] for name in names]
            made: dict[str, Made] = {}
            for at, group in enumerate(groups):
                if any(_living(part) for part in group) and not self._closing:
                    folder = self._folder / f"{number:08d}-{at}"
                    facts = segments.write(folder, group, names, widths, self._choice)
                    made[folder.name] = facts, _columns(folder, facts, group)
            gone = {part.name for group in groups for part in group if part.name}
            return bool(groups) and self._install(made, gone, before)

    def stop(self) -> None:
        """Wait for the compaction that runs, if any, and let no other one start; not to be called under the mutex."""
        with self._mutex:
            self._closing = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def sweep(self, catalog: Catalog, *earlier: str) -> None:
        """Delete what is in no catalog; `earlier` segments stay, for followers that are about to open them."""
        for path in segments.leftovers(self._folder, frozenset((*catalog.segments, *earlier))):
            shutil.rmtree(path, ignore_errors=True)

    def _install(self, made: dict[str, Made], gone: set[str], before: int) -> bool:
        with self._mutex:
            if self._closing:
                return False
            owner, old = self._owner, self._owner.catalog
            memory = owner.memory
            added = [_opened(self._folder / name, facts, memory, columns) for name, (facts, columns) in made.items()]
            owner.catalog = self._store.publish({name: facts for name, (facts, _) in made.items()}, gone, before)
            memory.adopt(added, gone)
            owner.show()
        self.sweep(owner.catalog, *old.segments)
        return True

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # on Linux, of this thread alone
        try:
            while self.run(full=False):
                pass
        except Exception as error:
            self._patience = self._owner.memory.sequence + FILLED * self._seal
            bug = error if not isinstance(error, OSError) else None  # a full disk is none
            said = "gallery %s could not be compacted (%s); it works on, and is tried again later"
            log.error(said, self._folder, error, exc_info=bug)


def _columns(folder: Path, facts: Any, sources: Sequence[Part]) -> Columns:  # noqa: ANN401 - JSON
    """Return, for the payload keys that somebody asked for in the sources, the rows of each value."""
    part = segments.read(folder, facts, range(len(facts["spaces"])), verify=False)
    for key in {key for source in sources for key in source.columns}:
        part.column(key)
    return part.columns


def _opened(folder: Path, facts: Any, memory: Memory, columns: Columns) -> Part:  # noqa: ANN401 - JSON
    codes = [memory.code(space) for space in facts["spaces"]]
    return replace(segments.read(folder, facts, codes, verify=False), columns=columns)
