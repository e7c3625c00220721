"""What SQLite says, in errors of ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lifelong.errors import ArtifactError, Unavailable


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise `Unavailable` or `ArtifactError` for what SQLite raises within, naming the file."""
    try:
        yield
    except sqlite3.OperationalError as error:  # locked, full, unreadable: it may pass
        if "no such table" in str(error):
            raise ArtifactError(f"{path} is no log: {error}") from error
        raise Unavailable(f"{path} cannot be used now: {error}; look at the disk and at who holds it") from error
    except sqlite3.DatabaseError as error:
        raise ArtifactError(f"{path} is damaged or no log: {error}; restore it from a copy") from error
