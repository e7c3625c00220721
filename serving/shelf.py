"""The gallery as one worker of several holds it: in a folder the writer if it can be, a follower otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from lifelong.errors import Behind, Locked, NotFound
from lifelong.gallery.base import Row, Stats, Vectors, View
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.gallery.opening import opened
from lifelong.gallery.pgvector import PgVectorGallery
from lifelong.types import Space

REACH_SECONDS = 0.5  # that a request waits for a change; it holds a handler thread so long
PATIENCE_SECONDS = 10.0  # for another worker that is just making the gallery


@final
class Shelf:
    """A gallery that several workers share.

    Into a folder one process may write. The others follow it, answer searches, and take over at their next write once
    it is gone. Into PostgreSQL all of them write.

    Args:
        place: Folder of the gallery, made if it is not there; or connection strings, separated by spaces.

    Raises:
        ConfigError: PostgreSQL is asked for, and psycopg or pgvector is missing.
        Unavailable: The folder cannot be written, or the database not be reached.
        ArtifactError: The gallery is damaged.
    """

    def __init__(self, place: Path | str) -> None:
        self.place = place
        self._mutex = threading.Lock()
        try:
            self._gallery = opened(place, threads=1)
        except Locked:
            self._gallery = _followed(place)

    @property
    def follows(self) -> bool:
        """Whether another process is the writer."""
        return self._gallery.readonly

    def view(self) -> View:
        """Return the gallery as it is now, for the whole of one request."""
        return self._gallery.view()

    def stats(self) -> Stats:
        """Return how much it holds."""
        return self._gallery.stats()

    def add(
        self, ids: Sequence[str | int], vectors: Vectors, space: Space, payload: list[dict[str, Any]] | None
    ) -> int:
        """Store rows durably and return the sequence number; see `Gallery.add`.

        Raises:
            Locked: Another worker is the writer.
        """
        return self._writer().add(ids, vectors, space, payload)

    def remove(self, ids: Sequence[str | int]) -> int:
        """Remove rows durably and return how many were there; raises like `add`."""
        return self._writer().remove(ids)

    def get(self, ids: Sequence[str | int]) -> list[Row | None]:
        """Return the row of each id, None where there is none; those of other workers as far as they were seen."""
        return self._gallery.get(ids)

    def refresh(self) -> int:
        """See what the writer has written; return the newest sequence number."""
        return self._gallery.refresh()

    def reach(self, sequence: int) -> None:
        """Return once change number `sequence` is seen here.

        What was acknowledged is committed, so one look is enough, unless the database is a copy that lags behind.

        Raises:
            Behind: It was not seen in `REACH_SECONDS`.
        """
        until = time.monotonic() + REACH_SECONDS
        while (seen := self.view().sequence) < sequence and (seen := self.refresh()) < sequence:
            if time.monotonic() > until:
                raise Behind(
                    f"the gallery is at change {seen}, and the request wants to see {sequence}; it was written to "
                    "another gallery, or this one is an older copy: read without x-gallery-sequence, or write again"
                )
            time.sleep(REACH_SECONDS / 50)

    def close(self) -> None:
        """Let go of files and locks."""
        self._gallery.close()

    def _writer(self) -> EmbeddedGallery | PgVectorGallery:
        with self._mutex:
            if self._gallery.readonly:
                follower, self._gallery = self._gallery, self._promoted()
                follower.close()
            return self._gallery

    def _promoted(self) -> EmbeddedGallery | PgVectorGallery:
        try:
            return opened(self.place, threads=1)
        except Locked:
            raise Locked(
                "another worker of this server writes the gallery; send it again, or serve one worker"
            ) from None


def _followed(place: Path | str) -> EmbeddedGallery | PgVectorGallery:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return opened(place, readonly=True, threads=1)
        except NotFound:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
