"""A small disk of a test's own, which can really be full or read-only; needs the right to mount."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = 4096


class Disk:
    """A tmpfs.

    Args:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._ballast = folder, folder / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Take all room but so many pages."""
        with self._ballast.open("ab") as file:
            size = max(0, file.tell() - leave * PAGE)
            file.truncate(size)
            while True:
                try:
                    os.posix_fallocate(file.fileno(), size, PAGE)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    break
                size += PAGE
            file.truncate(size - leave * PAGE)

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink(missing_ok=True)

    def readonly(self, folder: Path, yes: bool = True) -> None:
        """Let nothing be written below a folder (in which no file is open for writing), or let it again."""
        if not os.path.ismount(folder):
            _mount("--bind", folder, folder)
        _mount("-o", f"remount,bind,{'ro' if yes else 'rw'}", folder)


@contextlib.contextmanager
def mounted(folder: Path, size: str = "2m") -> Iterator[Disk]:
    """Give a disk of that size; the test is skipped where none can be mounted."""
    folder.mkdir(exist_ok=True)
    try:
        _mount("-t", "tmpfs", "-o", f"size={size},huge=never", "tmpfs", folder)
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", b"") or str(error).encode()
        pytest.skip(f"needs the right to mount a file system: {told.decode().strip()}")
    try:
        yield Disk(folder)
    finally:
        inner = [path for path in folder.rglob("*") if path.is_dir() and os.path.ismount(path)]
        for path in (*inner, folder):
            subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)
