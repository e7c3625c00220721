"""Which records a run has learned from: where it began, where it is, and where it took a short batch at an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final


@final
class Span:
    """The part of a stream that a run has been through.

    A run that is told to stop at the end of what is there (`until=end`) learns a last batch that may be short, and
    closes its window. Whoever goes the same way again has to stop there too, so those places are remembered.
    """

    def __init__(self) -> None:
        self.start: dict[str, int] = {}  # offset of the first record, by partition
        self.ends: list[dict[str, Any]] = []  # {"records": so many in all, "positions": {...}}

    def begin(self, partition: str, offset: int) -> None:
        """Note the first record of a partition."""
        self.start.setdefault(partition, offset)

    def end(self, records: int, positions: Mapping[str, int]) -> None:
        """Note that the end of what was there has been reached after so many records."""
        if not self.ends or self.ends[-1]["records"] != records:
            self.ends.append({"records": records, "positions": dict(positions)})

    def state(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"start": dict(self.start), "ends": list(self.ends)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.start, self.ends = dict(state["start"]), list(state["ends"])
