"""What each worker of this server holds ready, written where the others can read it: a promotion waits for all.

One file per worker, `workers/PID.json` of the state folder; files of processes that are gone are removed.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import final

from lifelong import files
from lifelong.errors import LifelongError
from serving.slot import Slot

log = logging.getLogger("lifelong.serving")


@final
@dataclass(frozen=True)
class Report:
    """What one worker says of itself.

    Args:
        pid: Its process.
        version: Live in it; None if none is.
        rollout: Number of the `ROLLOUT` that it follows.
        ready: Versions it can switch to at once.
        refused: Versions it did not let in, as decimal strings, and why.
    """

    pid: int
    version: int | None = None
    rollout: int = 0
    ready: list[int] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def report(slot: Slot) -> Report:
    """Return how a slot of this process is now."""
    beside = slot.trials.beside
    refused = {str(version): why for version, why in beside.refused.items()}
    ready = sorted({*beside.held, *slot.kept, *([slot.version] if slot.version else [])})
    return Report(os.getpid(), slot.version, beside.rollout.seq, ready, refused)


@final
class Crew:
    """The workers that share a state folder.

    Args:
        folder: For their files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._last, self._failed = folder, Report(0), ""

    def write(self, told: Report) -> None:
        """Say how this worker is; nothing is written if nothing changed."""
        if told == self._last:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            aside = self.folder / f"{told.pid}.new"
            aside.write_bytes(files.canonical_json(asdict(told)))
            aside.replace(self.folder / f"{told.pid}.json")  # not flushed: it means nothing once the process is gone
            self._last, self._failed = told, ""
        except OSError as error:  # said once, and tried again until it is written
            if self._failed != str(error):
                log.error("%s cannot be written: %s", self.folder, error)
            self._failed = str(error)

    def read(self) -> list[Report]:
        """Return the reports of the workers that run."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            if not _runs(path.stem):
                path.unlink(missing_ok=True)
                continue
            try:
                found.append(Report(**files.parse_json(files.read_file(path))))
            except (LifelongError, TypeError) as error:
                log.warning("%s is ignored: %s", path, error)
        return found

    def leave(self) -> None:
        """Take this worker's files away."""
        for path in self.folder.glob(f"{os.getpid()}.*"):
            path.unlink(missing_ok=True)


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
