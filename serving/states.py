"""What became of each version, derived from what is known anyway: reports, events, and what workers say.

```
candidate -> validated -> warm -> live -> retired
    └────────────┴──────────┴──────┴────> rejected, by a gate, for a reason
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from lifelong.release.events import Event
from serving.crew import Report
from serving.slot import Slot

EVENTS = 500  # the newest are looked at


@final
@dataclass(frozen=True)
class State:
    """What became of a version.

    Args:
        name: `candidate` (nobody judged it), `validated` (the trainer's gate let it through), `warm` (a worker holds it
            ready), `live` (in a worker), `retired` (was live) or `rejected`.
        gate: What rejected it; empty otherwise.
        reason: Why; empty otherwise.
    """

    name: str
    gate: str = ""
    reason: str = ""


@final
class States:
    """Of the versions of a registry, as one worker sees them.

    Args:
        slot: Of the worker.
        workers: What all of them say.
        events: The newest of the registry.
    """

    def __init__(self, slot: Slot, workers: Sequence[Report], events: Sequence[Event]) -> None:
        self._live = {slot.version, *(worker.version for worker in workers)}
        self._kept, self._held = set(slot.retired), set(slot.trials.beside.held)
        self._ready = {version for worker in workers for version in worker.ready}
        self._was_live = self._kept | {e.version for e in events if e.pointer is not None and e.version is not None}
        self._rejected = {r.version: State("rejected", r.gate, r.reason) for r in slot.rejected[::-1]}
        for worker in workers:
            for version, why in worker.refused.items():
                self._rejected.setdefault(int(version), State("rejected", f"worker {worker.pid}", why))

    def of(self, version: int, report: dict[str, Any] | None) -> State:
        """Return the state of a version that the trainer's gate said `report` of."""
        if version in self._live:
            return State("live")
        if version not in self._kept and version in self._rejected:
            return self._rejected[version]
        if version in self._held or version in self._ready - self._was_live:
            return State("warm")
        if version in self._was_live:
            return State("retired")
        if report and "unreadable" in report:
            return State("rejected", "fetch", str(report["unreadable"]))
        return State("validated" if report and report["passed"] else "candidate")
