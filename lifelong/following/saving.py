"""Commits on a disk that may be full, which of them are kept for the registry, and a name for who reads the source."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from threading import Event

from lifelong import files
from lifelong.daemon import Stopped
from lifelong.learning.checkpoint import Checkpoints
from lifelong.release.registry import Registry
from lifelong.sources.base import Source

log = logging.getLogger("lifelong.following")

LOCKED = "wait for it or use another folder"
READER = "reader"  # file in the folder of a run
DISK_SECONDS = 5.0  # between two attempts on a disk that is full


def until_written(write: Callable[[], object], stop: Event, waits: Callable[[str], None]) -> None:
    """Call `write` until the disk takes it; each time that it does not, log it and tell `waits` why.

    Raises:
        Stopped: `stop` was set meanwhile.
    """
    while True:
        try:
            write()
            return
        except OSError as error:
            log.warning("cannot commit: %s; training waits until there is room", error)
            waits(str(error))
            if stop.wait(DISK_SECONDS):
                raise Stopped(f"stopped without a last commit ({error}); the same command goes on") from error


def pin(commits: Checkpoints, registry: Registry, version: int, stop: Event, waits: Callable[[str], None]) -> None:
    """Keep the newest commit as the one that `version` was made from, as long as that is live or the newest.

    Waits for the disk as `until_written` does, and raises as it does.
    """
    kept = {**commits.pins(), version: commits.numbers()[-1]}
    wanted = {version, registry.current()}
    until_written(lambda: commits.pin({v: number for v, number in kept.items() if v in wanted}), stop, waits)


def introduce(source: Source, run: Path) -> None:
    """Tell a source who reads it, under a name made once that is no other run's, and when it was here last."""
    path = run / READER
    if not path.exists():
        files.write_atomic(path, f"{run.resolve().name}-{secrets.token_hex(4)}\n".encode())
    source.reader = files.read_file(path).decode().strip()
    source.left = max((one.stat().st_mtime for one in (run / "checkpoints").glob("[0-9]*")), default=0.0)
