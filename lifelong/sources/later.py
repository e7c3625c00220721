"""A source that nobody answers for yet: every question tries to reach it, and raises `Unavailable` until one does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import final

from lifelong.errors import Unavailable
from lifelong.sources.base import Record, Source


@final
class Later(Source):
    """What `make` returns, once it does; tried at once, so that a wrong address is said at once.

    Args:
        make: Reaches the source.
        on_gap: See `Source`.
        limit: See `Source`.
    """

    def __init__(self, make: Callable[[], Source], on_gap: str, limit: int) -> None:
        super().__init__(on_gap, limit)
        self._make = make
        self._inner: Source | None = None
        with suppress(Unavailable):
            self._reached()

    def poll(self, limit: int, timeout: float = 0.0) -> list[Record]:
        """See `Source.poll`."""
        inner = self._reached()
        inner.room = self.room
        try:
            return inner.poll(limit, timeout)
        finally:
            self._count(inner)

    def seek(self, positions: Mapping[str, int]) -> None:
        """See `Source.seek`."""
        inner = self._reached()
        try:
            inner.seek(positions)
        finally:
            self._count(inner)

    def first(self) -> dict[str, int]:
        """See `Source.first`."""
        return self._reached().first()

    def last(self) -> dict[str, int]:
        """See `Source.last`."""
        return self._reached().last()

    def commit_hint(self, positions: Mapping[str, int]) -> None:
        """See `Source.commit_hint`."""
        inner = self._reached()
        inner.reader = self.reader
        inner.commit_hint(positions)

    def close(self) -> None:
        """Close it, if it was ever reached."""
        if self._inner is not None:
            self._inner.close()

    def _reached(self) -> Source:
        if self._inner is None:
            self._inner = self._make()
            self.sequential, self.counted = self._inner.sequential, self._inner.counted
        return self._inner

    def _count(self, inner: Source) -> None:
        self.gaps, inner.gaps = self.gaps + inner.gaps, 0
