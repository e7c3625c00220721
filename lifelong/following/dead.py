"""Records that could not be learned: kept with the reason until a person replays or drops them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, final

import torch

from lifelong.errors import ConfigError, NotFound
from lifelong.sources.base import Record

log = logging.getLogger("lifelong.following")

REASONS = ("record", "large", "schema", "step")  # it cannot be read, is too large, does not fit, breaks the step
KEPT_BYTES = 1 << 20  # of one record; of a larger one only the beginning is kept, and it cannot be replayed


@final
@dataclass(frozen=True, slots=True)
class Letter:
    """One record that could not be learned.

    Args:
        record: As the source gave it; its payload may be cut.
        error: Why, in one line.
        number: For people to name it by; counts all dead letters of the run.
        whole: Whether the payload is all there.
        reason: The same as `error` in one of the words `REASONS`.
    """

    record: Record
    error: str
    number: int = 0
    whole: bool = True
    reason: str = "record"

    @classmethod
    def of(cls, record: Record, error: str, whole: bool = True, reason: str = "record", number: int = 0) -> Self:
        """Return a letter with as much of the record as is kept."""
        payload = record.payload[:KEPT_BYTES]
        whole = whole and len(payload) == len(record.payload)
        return cls(replace(record, payload=payload), error, number, whole, reason)


@final
@dataclass(slots=True)
class DeadLetters:
    """A bounded queue of letters, and of records to try again.

    Args:
        capacity: Letters at most; of more the oldest goes, and is counted in `lost`.
        letters: Those that are kept, oldest first.
        again: Records to try again.
        total: Letters that there ever were.
        lost: Letters that are kept no more for want of room.
        reasons: Letters that there ever were, by reason.
    """

    capacity: int
    letters: list[Letter] = field(default_factory=list)
    again: list[Record] = field(default_factory=list)
    total: int = 0
    lost: int = 0
    reasons: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))

    def add(self, letters: Iterable[Letter], lose: bool = True) -> None:
        """Keep letters, with numbers of their own.

        Args:
            letters: In order.
            lose: The oldest go where there are too many; not while a person has to look at them.
        """
        for letter in letters:
            self.total += 1
            self.reasons[letter.reason] += 1
            self.letters.append(Letter.of(letter.record, letter.error, letter.whole, letter.reason, self.total))
        if lose and (over := len(self.letters) - self.capacity) > 0:
            self.lost += over
            del self.letters[:over]
            log.warning("more than %d dead letters: the oldest %d are gone; look at the producer", self.capacity, over)

    def replay(self, numbers: Iterable[int]) -> int:
        """Have letters tried again, all of them if none is named; return how many.

        Raises:
            NotFound: There is no letter of that number.
            ConfigError: Of one of them only the beginning was kept.
        """
        chosen = self._chosen(numbers)
        if cut := [letter.number for letter in chosen if not letter.whole]:
            raise ConfigError(f"of letter {cut[0]} only the beginning was kept; have its producer send it again")
        self.again += [letter.record for letter in chosen]
        return self._remove(chosen)

    def drop(self, numbers: Iterable[int]) -> int:
        """Forget letters, all of them if none is named; return how many.

        Raises:
            NotFound: There is no letter of that number.
        """
        return self._remove(self._chosen(numbers))

    def state(self) -> dict[str, Any]:
        """Return everything, the payloads as one tensor."""
        records = [*(letter.record for letter in self.letters), *self.again]
        joined = bytearray(b"".join(record.payload for record in records))
        return {
            "letters": [[one.error, one.number, one.whole, one.reason] for one in self.letters],
            "records": [{**asdict(r), "payload": len(r.payload)} for r in records],
            "payloads": torch.frombuffer(joined, dtype=torch.uint8) if joined else torch.empty(0, dtype=torch.uint8),
            "total": self.total,
            "lost": self.lost,
            "reasons": dict(self.reasons),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        joined, at, records = bytes(state["payloads"].numpy()), 0, list[Record]()
        for facts in state["records"]:
            size = facts["payload"]
            records.append(Record(**{**facts, "payload": joined[at : at + size]}))
            at += size
        told = state["letters"]
        self.letters = [Letter(record, *facts) for record, facts in zip(records, told, strict=False)]
        self.again = records[len(told) :]
        self.total, self.lost = state["total"], state["lost"]
        self.reasons = dict(state["reasons"])

    def _chosen(self, numbers: Iterable[int]) -> list[Letter]:
        wanted = set(numbers)
        if missing := wanted - {letter.number for letter in self.letters}:
            raise NotFound(f"there is no dead letter {min(missing)}; lifelong dead list RUN names them")
        return [letter for letter in self.letters if not wanted or letter.number in wanted]

    def _remove(self, chosen: list[Letter]) -> int:
        gone = {letter.number for letter in chosen}
        self.letters = [letter for letter in self.letters if letter.number not in gone]
        return len(chosen)
