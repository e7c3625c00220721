"""The trainer's log, as the server writes labelled samples to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import final

from lifelong.errors import Busy
from lifelong.labels import Label
from lifelong.sources.log import Log
from lifelong.sources.record import encode
from serving.live import Floats

LOOK_SECONDS = 5.0  # between two looks at how far the trainer has read


@final
class Stream:
    """The log, written by one thread of this process; other processes may write it at the same time.

    Args:
        folder: Of the log; made with the first label.
        most: Records that may wait for the trainer; with more, labels are refused until it has read on.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._writer = ThreadPoolExecutor(1, "lifelong-stream")  # a log belongs to the thread that opened it
        self._log: Log | None = None
        self._looked, self._backlog = -LOOK_SECONDS, 0

    def append(self, records: Sequence[tuple[str, Floats, Label]]) -> None:
        """Put labelled samples `(id, x, label)` into the log in one step.

        They are durable when this returns, and there once however often they are sent.

        Raises:
            Unavailable: The disk is full, or others held the log for too long; nothing was added.
        """
        rows = [(sid, encode(x, label)) for sid, x, label in records]
        self._writer.submit(lambda: self._open().append(rows)).result()

    def backlog(self) -> int:
        """Return how many records no trainer has read yet; looked up every few seconds."""
        if time.monotonic() - self._looked > LOOK_SECONDS and self.folder.exists():
            self._looked = time.monotonic()
            self._backlog = self._writer.submit(self._count).result()
        return self._backlog

    def check(self) -> None:
        """Raise `Busy` while the trainer is too far behind."""
        if (waiting := self.backlog()) >= self.most:
            raise Busy(f"{waiting} labels wait for the trainer, and {self.most} may; send them again later")

    def close(self) -> None:
        """Close the log; what comes later opens it again."""
        self._writer.submit(self._close).result()

    def _count(self) -> int:
        facts = self._open().facts()
        readers = facts["readers"]
        done = max(readers.values(), default=0) if isinstance(readers, dict) else 0
        return max(0, int(str(facts["last"] or 0)) - int(done))

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _open(self) -> Log:
        if self._log is None:
            self._log = Log(self.folder, create=True)
        return self._log
