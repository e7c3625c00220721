"""LAST_GOOD: the version that was live last, in the server's own folder, for a start with a bad pointer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import final

from lifelong import files
from lifelong.errors import DataError, NotFound

log = logging.getLogger("lifelong.serving")


@final
class LastGood:
    """One number in one file, replaced as a whole.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> int | None:
        """Return the version, or None if none was written or the file is damaged (which is logged)."""
        try:
            value = files.parse_json(files.read_file(self.path))
            return int(value["version"])
        except NotFound:
            return None
        except (DataError, KeyError, TypeError, ValueError) as error:
            log.warning("%s is ignored: %s", self.path, error)
            return None

    def write(self, version: int) -> None:
        """Remember `version`; a full disk is logged and does not stop the serving."""
        try:
            files.write_atomic(self.path, files.canonical_json({"version": version}))
        except OSError as error:
            log.error("version=%d is live but %s cannot be written: %s", version, self.path, error)
