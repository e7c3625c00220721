"""The other processes of a run: each has a trainee of its own, which does what the first one's does.

Only the first process reads the source, tests, commits and publishes. What its trainee is asked to do (take samples,
close a window, go back to a state) it says to the others before it does it; so nothing else has to be agreed upon.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lifelong.batching import stack
from lifelong.following.portion import Row
from lifelong.learning.ranks import Ranks
from lifelong.sources.base import Record
from lifelong.sources.record import Sample

END = {"do": "end"}


def taking(rows: Sequence[Row], careful: bool) -> dict[str, Any]:
    """Return what is said before samples are taken: what a trainee needs of them, not the records."""
    facts = [[row.id, row.sample.y, row.sample.task, row.record.time] for row in rows]
    return {"do": "take", "x": stack([row.sample.x for row in rows]), "rows": facts, "careful": careful}


def taken(said: dict[str, Any]) -> list[Row]:
    """Return the rows of which `taking` told."""
    told = zip(said["x"], said["rows"], strict=True)
    return [Row(id_, Sample(x, y, task), Record("", 0, "", b"", time)) for x, (id_, y, task, time) in told]


@contextmanager
def leading(ranks: Ranks) -> Iterator[None]:
    """Have the other processes end when this block does, whatever ends it."""
    try:
        yield
    finally:
        with suppress(RuntimeError):  # they are gone
            ranks.tell(END)
