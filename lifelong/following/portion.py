"""What one step works on: samples that may be learned, records that may not, and where they end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import final

from lifelong.following.dead import Letter
from lifelong.sources.base import Record
from lifelong.sources.record import Sample


@final
@dataclass(frozen=True, slots=True)
class Row:
    """A sample that may be learned.

    Args:
        id: 63 bits of the hash of its sample id.
        sample: Decoded.
        record: Where it came from.
    """

    id: int
    sample: Sample
    record: Record


@final
@dataclass(slots=True)
class Portion:
    """What one step works on.

    Args:
        rows: Samples in order.
        dead: Records that cannot be learned.
        positions: After its last record.
        boundary: The window ends with it, by what the next record says.
        records: How many were looked at.
        duplicates: How many of them had been learned before.
        replayed: How many came from the dead letters.
    """

    rows: list[Row] = field(default_factory=list)
    dead: list[Letter] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    boundary: bool = False
    records: int = 0
    duplicates: int = 0
    replayed: int = 0

    @property
    def first(self) -> tuple[float, int] | None:
        """Time and declared task of the first sample."""
        return (self.rows[0].record.time, self.rows[0].sample.task) if self.rows else None


def identity(sid: str) -> int:
    """Return 63 bits of the hash of a sample id."""
    return int.from_bytes(hashlib.blake2b(sid.encode(), digest_size=8).digest(), "big") >> 1
