"""The steps of a version on its way to being live: how long each took, and which of them refused it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

NOTE = "gate: "
SWAPS = 8  # that are remembered
POINTER = "pointer"  # what names the version cannot be read


@final
@dataclass(frozen=True)
class Swap:
    """A version that went live in this worker.

    Args:
        version: Its number.
        outcome: `live` or `rollback`.
        time: When, in seconds since 1970.
        seconds: From the new pointer to the new live version.
        phases: Seconds of `fetch` (read, with every checksum), `build` (and compared with the trainer's answers),
            `warm` and `flip`. What was held ready before was
            fetched, built and warmed before; what went back has only `flip`.
    """

    version: int
    outcome: str
    time: float
    seconds: float
    phases: Mapping[str, float]


@contextmanager
def step(name: str, took: dict[str, float] | None = None) -> Iterator[None]:
    """Time what is done inside, and write on an error that comes out of it which step it was.

    Args:
        name: Of the step.
        took: Is told the seconds.
    """
    began = time.perf_counter()
    try:
        yield
    except Exception as error:
        if gate(error) == POINTER:  # the innermost step counts
            error.add_note(NOTE + name)
        raise
    if took is not None:
        took[name] = time.perf_counter() - began


def gate(error: BaseException) -> str:
    """Return the step that refused."""
    notes = (note.removeprefix(NOTE) for note in getattr(error, "__notes__", ()) if note.startswith(NOTE))
    return next(notes, POINTER)
