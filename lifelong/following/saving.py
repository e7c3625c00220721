"""What is done on a disk that may be full: again and again, until there is room."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event

from lifelong.daemon import Stopped

log = logging.getLogger("lifelong.following")

DISK_SECONDS = 5.0  # between two attempts on a disk that is full


def until_written(write: Callable[[], object], stop: Event) -> None:
    """Call `write` until the disk takes it, saying each time that it does not.

    Raises:
        Stopped: `stop` was set meanwhile.
    """
    while True:
        try:
            write()
            return
        except OSError as error:
            log.warning("cannot commit: %s; training waits until there is room", error)
            if stop.wait(DISK_SECONDS):
                raise Stopped(f"stopped without a last commit ({error}); the same command goes on") from error
