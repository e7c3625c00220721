"""From records to portions that one step learns: duplicates left out, poison put aside, positions noted.

A portion is a function of the records after the position and of the saved state, of nothing else: read again after a
crash it is the same. What it changes takes effect in `accept`, once its samples have been learned.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, TypeVar, final

import torch

from lifelong.errors import Halted, LifelongError, RetentionGap, Unavailable
from lifelong.following.dead import DeadLetters, Letter
from lifelong.following.patience import patiently
from lifelong.following.portion import Portion, Row, identity
from lifelong.following.schema import Schema
from lifelong.following.settings import Follow
from lifelong.following.span import Span
from lifelong.following.windows import Windows
from lifelong.labels import Label
from lifelong.sources.base import Record, Source
from lifelong.sources.record import decode

log = logging.getLogger("lifelong.following")

POLL_SECONDS = 0.2
MOST_RECORDS = 1024  # that one portion looks at, where few of them can be learned
T = TypeVar("T")


@final
class Intake:
    """Reads a source from the saved position on.

    Args:
        source: Whose offsets count only when they are saved with what was learned.
        schema: What a sample has to look like.
        settings: Of the stream.
        stop: Set to give up waiting.
        waiting: Called again and again while there is nothing to read, with the reason if the source is gone.
    """

    def __init__(
        self, source: Source, schema: Schema, settings: Follow, stop: Event, waiting: Callable[[str], None]
    ) -> None:
        self.source, self.schema, self.settings, self.stop, self.waiting = source, schema, settings, stop, waiting
        self.positions: dict[str, int] = {}
        self.dead = DeadLetters(settings.dead_letters)
        self.counts = {"records": 0, "duplicates": 0, "dead": 0, "gaps": 0, "replayed": 0, "late": 0}
        self.span = Span()
        self.recent = [0, 0]  # records, and dead ones among them, of the running thousand
        self.halted = 0.0  # share of dead ones that was too much; until a person has done something about it
        self._order: deque[int] = deque()
        self._known: set[int] = set()
        self._queue: deque[Record] = deque()
        self._read: dict[str, int] = {}
        self._largest = settings.record_bytes  # record that is to be expected
        self.ended = self._moved = False

    def next(self, size: int, windows: Windows, labels: Iterable[Label]) -> Portion | None:
        """Return the next portion of up to `size` samples, None if the run is to stop or nothing more is there.

        It is empty if whoever was told of the waiting had us read on from somewhere else.

        Raises:
            RetentionGap: Records were deleted unread, and that is an error here.
        """
        portion, known, new = Portion(positions=dict(self.positions)), set(labels), set[int]()
        room = size if windows.room is None else min(size, windows.room)
        deadline, self._moved = None, False
        while len(portion.rows) < room and portion.records < max(MOST_RECORDS, 8 * size):
            record = self._next(portion.replayed, deadline)
            if record is None:
                break
            replayed = portion.replayed < len(self.dead.again)
            row = self._row(record, known, portion)
            repeated = row is not None and (row.id in self._known or row.id in new)
            if row and not repeated and not windows.belongs(record.time, row.sample.task, portion.first):
                portion.boundary = True
                if not replayed:
                    self._queue.appendleft(record)
                return portion
            self._consume(record, replayed, portion)
            portion.duplicates += repeated
            if row and not repeated:
                portion.rows.append(row)
                new.add(row.id)
                known.add(row.sample.y)
                deadline = deadline or (time.monotonic() + self.settings.linger if self.settings.linger else None)
        if self._moved and not self.stop.is_set():
            return Portion(positions=dict(self.positions))
        if self.stop.is_set() or not portion.records:
            return None  # what was read is read again after the next start
        return portion

    def accept(self, portion: Portion) -> None:
        """Take note that a portion was learned."""
        for row in portion.rows:
            self._order.append(row.id)
            self._known.add(row.id)
        while len(self._order) > self.settings.dedup:
            self._known.discard(self._order.popleft())
        del self.dead.again[: portion.replayed]
        self._weigh(portion)
        self.dead.add(portion.dead, lose=not self.halted)
        self.positions = portion.positions
        self.counts["replayed"] += portion.replayed
        self.counts["records"] += portion.records
        self.counts["duplicates"] += portion.duplicates
        self.counts["dead"] += len(portion.dead)
        self.counts["gaps"] += self.source.gaps
        self.counts["late"] += self.source.late
        self.source.gaps = self.source.late = 0

    def finish(self) -> None:
        """Take note that everything that was there has been learned."""
        self.span.end(self.counts["records"], self.positions)

    def range(self) -> dict[str, Any]:
        """Return which records were learned, as plain values."""
        told = {key: self.counts[key] for key in ("records", "replayed", "gaps")}
        return {**told, "positions": dict(self.positions), **self.span.state()}

    def refuse_if_halted(self, run: Path) -> None:
        """Raise `Halted` if too many records were dead, by the settings of now; else that is forgotten."""
        if self.halted > self.settings.max_dead:
            raise Halted(
                f"{self.halted:.0%} of the last records could not be learned, more than max_dead; nothing more is read "
                f"before something is done: look at them (lifelong dead list {run}), then have them tried again "
                "(lifelong dead replay) or drop them (lifelong dead drop), or raise max_dead"
            )
        self.halted = 0.0

    def state(self) -> dict[str, Any]:
        """Return positions, the ids seen last, dead letters and counts."""
        return {
            "positions": dict(self.positions), "known": torch.tensor(list(self._order), dtype=torch.int64),
            "dead": self.dead.state(), "counts": dict(self.counts), "recent": list(self.recent),
            "span": self.span.state(), "halted": self.halted,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave; `seek` then goes to its positions in the source."""
        self.positions, self.counts = dict(state["positions"]), {**self.counts, **state["counts"]}
        self.span.restore(state["span"])
        self._order = deque(state["known"].tolist())
        self._known = set(self._order)
        self.dead.restore(state["dead"])
        self.recent, self.halted = list(state["recent"]), state.get("halted", 0.0)  # not in older commits

    def seek(self) -> None:
        """Read on after the saved positions, tell the source so, and forget what was read beyond them.

        Raises:
            RetentionGap: The stream ends before them, and that is an error here.
        """
        self._queue.clear()
        self._patiently(self._find)
        self._read, self.ended, self._moved = dict(self.positions), False, True
        self.hint(self.positions)

    def hint(self, positions: dict[str, int]) -> None:
        """Tell the source what is on disk; if it is gone just now, the next hint will do."""
        with suppress(Unavailable):
            self.source.commit_hint(positions)

    def _find(self) -> None:
        for partition, end in ({} if self.source.sequential else self.source.last()).items():
            if end < (read := self.positions.get(partition, end)):
                message = (
                    f"{partition} ends at offset {end}, this run has read up to {read} and would pass over what comes "
                    "now; restore a newer copy of the stream, or let a new run (--run) learn this one"
                )
                if self.source.on_gap == "error":
                    raise RetentionGap(f"{message}, or go on after {end} (on_gap=skip)")
                log.warning("%s; going on after %d", message, end)
                self.positions[partition], self.counts["gaps"] = end, self.counts["gaps"] + 1
        self.source.seek(self.positions)

    def _weigh(self, portion: Portion) -> None:
        """Look at the share of dead records once in a thousand."""
        records, dead = self.recent[0] + portion.records, self.recent[1] + len(portion.dead)
        self.recent = [records, dead] if records < 1000 else [0, 0]
        if records >= 1000 and self.settings.max_dead < 1 and dead > self.settings.max_dead * records:
            self.halted = dead / records

    def _row(self, record: Record, known: set[Label], portion: Portion) -> Row | None:
        sample = None
        try:
            sample = decode(record.payload, self.settings.record_bytes)
            self.schema.check(sample, known)
        except LifelongError as error:
            whole = len(record.payload) <= self.settings.record_bytes
            reason = "schema" if sample else "record" if whole else "large"
            portion.dead.append(Letter.of(record, str(error), whole, reason))
            return None
        return Row(identity(record.sid), sample, record)

    def _consume(self, record: Record, replayed: bool, portion: Portion) -> None:
        portion.records += 1
        portion.replayed += replayed
        if not replayed:
            if not (self.source.sequential and self.span.start):
                self.span.begin(record.partition, record.offset)
            before = {} if self.source.sequential else portion.positions
            portion.positions = {**before, record.partition: record.offset}

    def _next(self, replayed: int, deadline: float | None) -> Record | None:
        """Return the next record; wait for it until there is one, the run is to stop, or the stream has ended."""
        if replayed < len(self.dead.again):
            return self.dead.again[replayed]
        while not self._queue and not self.stop.is_set():
            if deadline is not None and time.monotonic() > deadline:
                return None
            found = self._patiently(self._poll) or []
            self._queue.extend(found)
            for record in found:
                self._read[record.partition] = record.offset
            if not found and self.settings.until == "end" and self._at_end():
                self.ended = True
                return None
            if not found:
                self.waiting("")
            if self._moved:
                return None
        return self._queue.popleft() if self._queue and not self.stop.is_set() else None

    def _poll(self) -> list[Record]:
        """Read ahead, so many records that they have room if they are as large as those before."""
        room = self.source.room = self.settings.queue_bytes
        found = self.source.poll(max(1, min(2 * MOST_RECORDS, room // self._largest)), POLL_SECONDS)
        self._largest = max([1, self._largest // 4, *(len(record.payload) for record in found)])
        return found

    def _at_end(self) -> bool:
        if self.source.sequential:
            return True
        last = self._patiently(self.source.last) or {}
        return all(self._read.get(partition, -1) >= offset for partition, offset in last.items())

    def _patiently(self, ask: Callable[[], T]) -> T | None:
        return patiently(ask, self.stop, self.waiting)
