"""The thread that keeps the registry's folder a copy of a store, where there is one."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import final

from lifelong.errors import LifelongError
from lifelong.release.remote import Remote

log = logging.getLogger("lifelong.serving")


@final
class Following:
    """Pulls a store into a folder again and again; of several workers one does it at a time.

    Args:
        where: The store; empty is none, and nothing is done.
        folder: Of the registry that is served.
        seconds: Between two looks.
    """

    def __init__(self, where: str, folder: Path, seconds: float) -> None:
        self.where, self.folder, self.seconds = where, folder, seconds
        self._stop, self._told = threading.Event(), ""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the server starts with what is in the folder already."""
        if self.where:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="lifelong-remote", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End; what is in the folder stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        remote: Remote | None = None
        while not self._stop.is_set():
            try:
                remote = remote or Remote(self.where, self.folder)
                remote.pull()
            except (LifelongError, OSError) as error:
                if str(error) != self._told:
                    log.warning("%s; serving what is here, and trying again", error)
                self._told = str(error)
            else:
                self._told = ""
            self._stop.wait(self.seconds)
