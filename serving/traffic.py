"""What each version answers, and how fast: of all workers, and only of versions that answer or are compared now.

A request adds to three numbers of its own worker (`Tally`). About once a second each worker writes its numbers to
`workers/PID.times` of the state folder, for whichever worker is asked for the metrics. A version that is neither live
nor tried any more is written no more, so there are never more than three of them per worker.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import final

from lifelong import files
from lifelong.errors import LifelongError
from lifelong.telemetry import Reading
from serving.crew import Crew
from serving.mirror import Tally
from serving.slot import Slot

log = logging.getLogger("lifelong.serving")
SECONDS = 1.0  # between two times that they are written


@final
class Traffic:
    """The numbers of this worker, and those that the others wrote.

    Args:
        crew: The workers.
    """

    def __init__(self, crew: Crew) -> None:
        self.crew, self._due, self._last, self._failed = crew, 0.0, b"", ""
        self.path = crew.folder / f"{os.getpid()}.times"

    def write(self, slot: Slot, tallies: Mapping[tuple[str, int], Tally]) -> None:
        """Tell the others, if it is time to and anything has changed."""
        if time.monotonic() < self._due:
            return
        self._due, beside = time.monotonic() + SECONDS, slot.trials.beside
        shown = [("live", slot.version), ("canary", beside.canary), ("shadow", beside.shadow)]
        keys = [(kind, each if isinstance(each, int) else each.version) for kind, each in shown if each is not None]
        rows = [[*key, tally.seconds, tally.times] for key in keys if (tally := tallies.get(key))]
        data = files.canonical_json(rows)
        if data == self._last:
            return
        try:
            self.crew.folder.mkdir(parents=True, exist_ok=True)
            aside = self.path.with_suffix(".new-times")
            aside.write_bytes(data)
            aside.replace(self.path)  # not flushed: it means nothing once the process is gone
            self._last, self._failed = data, ""
        except OSError as error:
            if self._failed != str(error):
                log.error("%s cannot be written: %s", self.path, error)
            self._failed = str(error)

    def readings(self) -> Iterator[Reading]:
        """Yield what all workers that run have answered, and how many live versions there are among them."""
        workers = self.crew.read()
        alive = {str(worker.pid) for worker in workers} | {str(os.getpid())}
        for path in sorted(self.crew.folder.glob("*.times")):
            if path.stem not in alive:
                path.unlink(missing_ok=True)
                continue
            try:
                rows = files.parse_json(files.read_file(path))
                for kind, version, seconds, times in rows:
                    labels = (("kind", kind), ("version", str(version)), ("pid", path.stem))
                    yield Reading("lifelong_version_seconds", seconds, labels, times)
            except (LifelongError, TypeError, ValueError) as error:
                log.warning("%s is ignored: %s", path, error)
        yield Reading("lifelong_version_skew", len({w.version for w in workers if w.version}))
