"""The right to write into a gallery's folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import final

from lifelong.errors import Locked, Unavailable


@final
class WriterLock:
    """The right to write into `folder`; it ends with `close()` or with the process, however that dies.

    Raises:
        Locked: Somebody else has it; the message names the process.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "writer.lock"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise Locked(f"gallery {folder} is written by process {owner}; stop it, or open readonly") from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let the next writer in; the file stays, so that nobody locks a deleted one."""
        os.close(self._file)


def locked(folder: Path) -> WriterLock:
    """Make `folder` and lock it.

    Raises:
        Locked: Somebody else writes there.
        Unavailable: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return WriterLock(folder)
    except OSError as error:
        raise Unavailable(f"gallery {folder} cannot be written: {error}; check the path and permissions") from error
