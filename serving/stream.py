"""The trainer's log, as the server writes labelled samples to it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import final

from lifelong.errors import Busy
from lifelong.labels import Label
from lifelong.sources.log import Log
from lifelong.sources.record import encode
from serving.live import Floats


@final
class Stream:
    """The trainer's log, as the server writes to it.

    Args:
        folder: Of the log; made with the first label.
        most: Records that may wait for the trainer; with more, labels are refused until it has read on.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._mutex = threading.Lock()
        self._log: Log | None = None
        self._looked, self._backlog = 0.0, 0

    def append(self, sid: str, x: Floats, label: Label) -> None:
        """Put a labelled sample into the log; durable when this returns, and there once however often it is sent."""
        with self._mutex:
            self._open().append([(sid, encode(x, label))])

    def backlog(self) -> int:
        """Return how many records no trainer has read yet; looked up at most once a second."""
        with self._mutex:
            if time.monotonic() - self._looked > 1.0 and (self._log is not None or self.folder.exists()):
                log, self._looked = self._open(), time.monotonic()
                facts = log.facts()
                readers = facts["readers"]
                read = max(readers.values(), default=0) if isinstance(readers, dict) else 0
                self._backlog = max(0, int(str(facts["last"] or 0)) - int(read))
            return self._backlog

    def check(self) -> None:
        """Raise `Busy` while the trainer is too far behind."""
        if (waiting := self.backlog()) >= self.most:
            raise Busy(f"{waiting} labels wait for the trainer, and {self.most} may; send them again later")

    def close(self) -> None:
        """Close the log."""
        with self._mutex:
            if self._log is not None:
                self._log.close()
                self._log = None

    def _open(self) -> Log:
        if self._log is None:
            self._log = Log(self.folder, create=True)
        return self._log
