"""How far a grid is: a bar on a terminal, a line a minute in a log file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lifelong.bench.workers import Tell
from lifelong.commands import tables

EVERY = 60.0  # seconds between two lines


@contextmanager
def progress(name: str, total: int, *, quiet: bool) -> Iterator[Tell]:
    """Yield what to call with how many of how many cells are settled; `quiet` shows nothing."""
    with Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left:"), TimeRemainingColumn(), console=tables.console,
        disable=quiet or not tables.console.is_terminal,
    ) as display:  # fmt: skip
        task = display.add_task(name, total=total)
        lines = Lines(name, lambda line: click.echo(line, err=True))

        def tell(done: int, total: int) -> None:
            display.update(task, completed=done)
            if not quiet and not tables.console.is_terminal:
                lines.tell(done, total)

        yield tell


class Lines:
    """A line now and then: how many cells are settled, and how long the rest will take at the pace so far.

    Args:
        name: What is run.
        write: Takes a line.
        clock: Seconds.
    """

    def __init__(self, name: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._write, self._clock = name, write, clock
        self._begun = self._said = clock()
        self._first: int | None = None  # what was settled before
        self._ended = False

    def tell(self, done: int, total: int) -> None:
        """Write a line if the last one is old, or all is done."""
        now = self._clock()
        if self._first is None:
            self._first, self._ended = done, done == total
        if self._ended or (done < total and now - self._said < EVERY):
            return
        self._said, self._ended = now, done == total
        left = (now - self._begun) / (done - self._first) * (total - done) / 60 if done > self._first else None
        rest = f", about {math.ceil(left)} min left" if left is not None and done < total else ""
        self._write(f"{self._name}: {done} of {total} cells{rest}")
