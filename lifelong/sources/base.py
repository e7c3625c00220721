"""The one interface of sources: records in the order of their partition, read from any position.

A position is the offset of the last record that is done with; the next poll gives what comes after it. Whoever reads
keeps positions with whatever the records changed (the trainer: in its checkpoint), and seeks to them after a crash.
What a broker remembers about readers is a hint for its operators and never read back.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, final

from lifelong.errors import RetentionGap, UnknownName

log = logging.getLogger("lifelong.sources")

ON_GAP = ("error", "skip")
LIMIT = 16 * 2**20  # bytes of a record, unless a source is told another limit
PAUSE = 0.02  # seconds between two looks at a source that cannot wake us


@final
@dataclass(frozen=True, slots=True)
class Record:
    """One record as a source gives it.

    Args:
        partition: Order is kept within one.
        offset: Grows within a partition; not always by 1.
        sid: The sample's id, unique for ever; `partition:offset` where the producer gave none.
        payload: See `lifelong.sources.record`; of more bytes than the limit, limit + 1 may be all there is.
        time: Seconds since 1970 when the record was written, 0 if the source does not know.
    """

    partition: str
    offset: int
    sid: str
    payload: bytes
    time: float


class Source(ABC):
    """A stream of records in one or more partitions. Not for several threads.

    Args:
        on_gap: What to do where records were deleted before they were read: `error`, or `skip` them and count.
        limit: Bytes of a payload that are looked at.
    """

    sequential: bool = False  # partitions are read one after the other: only the last position matters
    counted: bool = True  # offsets grow by about 1 for each record, so that a difference says how many
    room: int = 256 * 2**20  # bytes of payload that a poll returns at most, beside one record; where a source can tell
    left: float = 0.0  # when whoever reads was here last, in seconds since 1970; 0 is that nobody knows
    reader: str = "trainer"  # whose position `commit_hint` tells, where a source keeps those of several

    def __init__(self, on_gap: str = "error", limit: int = LIMIT) -> None:
        if on_gap not in ON_GAP:
            raise UnknownName.among("way to treat a gap", on_gap, ON_GAP)
        self.on_gap, self.limit = on_gap, limit
        self.gaps = 0  # that were skipped
        self.late = 0  # files that came where nobody reads any more

    @abstractmethod
    def poll(self, limit: int, timeout: float = 0.0) -> list[Record]:
        """Return up to `limit` records after the position, and move it; wait up to `timeout` seconds for the first.

        Raises:
            RetentionGap: Records after the position were deleted; the position has not moved.
            Unavailable: The source cannot be reached; trying again later is safe.
        """

    @abstractmethod
    def seek(self, positions: Mapping[str, int]) -> None:
        """Go on after these offsets by partition; a partition that is not named starts at its first record."""

    @abstractmethod
    def first(self) -> dict[str, int]:
        """Return the offset of the first record that is still there, by partition; empty ones are left out."""

    @abstractmethod
    def last(self) -> dict[str, int]:
        """Return the offset of the last record by partition; empty ones are left out."""

    def commit_hint(self, positions: Mapping[str, int]) -> None:
        """Tell the source what is done with, for those who watch the lag or delete; nothing depends on it."""
        del positions  # most have nobody to tell

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections; closing twice is allowed."""

    def __enter__(self) -> Self:
        """Return the source."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def gap(self, partition: str, position: int, first: int | None) -> None:
        """Report that what followed `position` is gone, up to `first`; count it where that was asked for.

        Raises:
            RetentionGap: It was not.
        """
        found = "nothing is left" if first is None else f"the first one left is {first}"
        message = f"partition {partition!r} lost records after offset {position}: {found}"
        if self.on_gap == "error":
            raise RetentionGap(f"{message}; restore them, or go on without them (--follow on_gap=skip)")
        self.gaps += 1
        log.warning("%s; going on without them", message)
