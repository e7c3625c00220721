"""One process at a time: a lock that the kernel frees when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self, final

from lifelong.errors import Locked


def held(path: Path) -> bool:
    """Whether a process has the lock at `path`; asking leaves the file as it is."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@final
class FileLock:
    """The right to write beside `path`, from now on until `close()` or the end of the process.

    The file holds the number of its last owner, and stays: whoever locked a deleted file would lock nothing.

    Args:
        path: The file, in a folder that is there; made where it is missing.
        remedy: What a person may do where somebody else has the lock, for the error; None waits for the lock instead.

    Raises:
        Locked: Somebody else has it; the message names the process.
        OSError: The file cannot be made or written.
    """

    def __init__(self, path: Path, remedy: str | None = None) -> None:
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX if remedy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n".encode())
        except BlockingIOError as error:
            self._file.seek(0)
            owner = self._file.read(32).decode(errors="replace").strip() or "unknown"
            self._file.close()
            raise Locked(f"{path.parent} is being written by process {owner}; {remedy}") from error
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let the next one in; closing twice is allowed."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the lock, which is held already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next one in."""
        self.close()
