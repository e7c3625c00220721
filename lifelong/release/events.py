"""What happened in a registry: one immutable file per event, numbered without gaps, never rewritten.

An event is written before the pointer moves, so the events are the truth about what should be live: whoever was
killed between the two left an event that `Registry` can complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, final

from lifelong.errors import ArtifactError, DataError, NotFound
from lifelong.files import canonical_json, create_exclusive, parse_json, read_file
from lifelong.release.report import Report

REMEMBERED = 1000  # newest events whose keys are looked at
KINDS = ("publish", "promote", "rollback", "refuse", "canary", "shadow", "stop")


@final
@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened.

    Args:
        seq: Number of the event, from 1.
        kind: `publish`, `promote`, `rollback` or `refuse`; `canary`, `shadow` or `stop` of a trial beside the live
            version.
        version: The version it is about; None for a refusal (nothing was stored).
        previous: The version that was live before; None if none was.
        who: Program or person.
        why: For people.
        time: UTC, ISO 8601.
        report: The gate's, where there is one.
        pointer: The pointer's new `seq`, if this event moved it.
        share: Of the requests that a canary answers or a shadow sees, 0..1.
        key: Of the call that asked for it; a second call with the same key is not done again. Empty for none.
    """

    seq: int
    kind: str
    version: int | None
    previous: int | None
    who: str
    why: str
    time: str
    report: Report | None = None
    pointer: int | None = None
    share: float | None = None
    key: str = ""


@final
class EventLog:
    """The events in a folder.

    Args:
        folder: Holds `00000001.json` and so on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, **fields: Any) -> Event:  # noqa: ANN401 - the fields of Event
        """Write the next event and return it; if another writer takes its number, the one after that.

        Args:
            **fields: Those of `Event`, without `seq` and `time`.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        seq = max(self._numbers(), default=0) + 1
        while True:
            event = Event(seq=seq, time=now, **fields)
            told = {**vars(event), "report": event.report.as_dict() if event.report else None}
            if not event.key:
                del told["key"]  # programs that know no keys read it as well
            try:
                create_exclusive(self._path(seq), canonical_json(told))
            except FileExistsError:
                seq += 1
            else:
                return event

    def newest_first(self) -> Iterator[Event]:
        """Yield the events, read one by one.

        Raises:
            ArtifactError: A file is damaged.
        """
        for seq in sorted(self._numbers(), reverse=True):
            yield self._read(seq)

    def keyed(self, key: str) -> Event | None:
        """Return the newest event of a call, among the newest `REMEMBERED`; None if there is none."""
        recent = islice(self.newest_first(), REMEMBERED) if key else ()
        return next((event for event in recent if event.key == key), None)

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdecimal()]

    def _path(self, seq: int) -> Path:
        return self.folder / f"{seq:08d}.json"

    def _read(self, seq: int) -> Event:
        path = self._path(seq)
        try:
            value = parse_json(read_file(path))
            report = value.pop("report")
            event = Event(**value, report=None if report is None else Report.from_dict(report))
        except (ArtifactError, DataError, NotFound, AttributeError, KeyError, TypeError) as error:
            raise ArtifactError(f"the event {path} is damaged: {error}; restore it or move it away") from error
        if not _sound(event, seq):
            raise ArtifactError(f"the event {path} is damaged: a field has a wrong type; restore it or move it away")
        return event


def lineage(events: Sequence[Event]) -> list[int]:
    """Return the versions that a rollback can go back through, the live one last.

    A promotion is put on top; a rollback takes off what it went back over. So two rollbacks in a row go back two
    versions, and never to the one that the first of them left.

    Args:
        events: All of them, oldest first.
    """
    stack: list[int] = []
    for event in events:
        if event.pointer is None or event.version is None:
            continue
        if event.kind == "rollback" and event.version in stack:
            del stack[len(stack) - stack[::-1].index(event.version) :]
        elif not stack or stack[-1] != event.version:
            stack.append(event.version)
    return stack


def _sound(event: Event, seq: int) -> bool:
    numbers = (event.version, event.previous, event.pointer)
    return (
        event.seq == seq
        and event.kind in KINDS
        and all(n is None or (type(n) is int and n >= 1) for n in numbers)
        and (event.share is None or isinstance(event.share, int | float))
        and all(isinstance(text, str) for text in (event.who, event.why, event.time, event.key))
    )
