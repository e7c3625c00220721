"""The right to write into a gallery's folder."""

from __future__ import annotations

from pathlib import Path

from lifelong.errors import Unavailable
from lifelong.locks import FileLock


def locked(folder: Path) -> FileLock:
    """Make `folder` and lock it.

    Raises:
        Locked: Somebody else writes there.
        Unavailable: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / "writer.lock", "stop it, or open readonly")
    except OSError as error:
        raise Unavailable(f"gallery {folder} cannot be written: {error}; check the path and permissions") from error
