"""A small file that says whether a run is well: replaced as a whole every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from lifelong import files
from lifelong.errors import LifelongError

log = logging.getLogger("lifelong.following")

SECONDS = 5.0  # between two of them
NAME = "health.json"  # in the folder of a run
KEPT = ("state", "step", "samples", "positions", "lag", "last_commit", "version", "letters", "late")


@final
class Health:
    """Writes the file.

    Args:
        path: Of the file.
        pid: Of the process that it tells of.
    """

    def __init__(self, path: Path, pid: int) -> None:
        self.path, self.pid = path, pid
        self._next, self._failed = 0.0, False

    def beat(self, vital: Mapping[str, Any], now: bool = False) -> None:
        """Write the file if it is time; a disk that is full is no reason to stop training.

        Args:
            vital: Holds the names in `KEPT`.
            now: Whatever the time.
        """
        if not now and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS
        told = {"time": time.time(), "pid": self.pid, **{name: vital.get(name) for name in KEPT}}
        try:
            files.write_atomic(self.path, files.canonical_json(told))
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("cannot write %s: %s; training goes on", self.path, error)
            self._failed = True

    def happened(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Events are in the next file."""


def read(path: Path) -> dict[str, Any] | None:
    """Return what the file says, with its age in seconds as `age`; None if there is none that can be read."""
    try:
        told = files.parse_json(files.read_file(path))
    except LifelongError:
        return None
    return {**told, "age": time.time() - told["time"]} if isinstance(told, dict) and "time" in told else None
