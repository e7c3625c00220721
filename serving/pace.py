"""Which answers are so quick that handing them to a thread costs more than they do.

A thread and the event loop take turns at Python's interpreter lock, and each turn may cost milliseconds: a forward
pass of half a millisecond is answered in the loop itself. What is slower, or may wait for a disk, is answered in a
thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar, final

Said = TypeVar("Said")

QUICK_SECONDS = 0.005  # that the loop may be held: as long as Python lets a thread hold its lock anyway
COMPUTED = frozenset({"/v1/predict", "/v1/embed"})  # neither disk nor network, unless it is to be remembered
UNKNOWN = 1e-3  # seconds per byte, until there are answers to go by
SAMPLED = 8  # quick answers of which one is timed: asking for a thread's CPU time is a system call
FALL = 0.1  # of the way down with each answer; up it goes at once


@final
class Pace:
    """What answers cost, in CPU seconds per byte of their body, by route."""

    def __init__(self) -> None:
        self._costs, self._turn = dict.fromkeys(COMPUTED, UNKNOWN), 0

    def quick(self, route: str, size: int, form: Any) -> bool:  # noqa: ANN401 - a Form
        """Return whether a body of `size` bytes is likely answered in `QUICK_SECONDS`."""
        cost = self._costs.get(route)
        return cost is not None and cost * size <= QUICK_SECONDS and not getattr(form, "remember", False)

    def timed(self, route: str, size: int, answer: Callable[[], Said]) -> Said:
        """Return what `answer` says, and learn what it costs."""
        self._turn += 1
        cost = self._costs.get(route)
        if cost is None or (self._turn % SAMPLED and cost * size <= QUICK_SECONDS):
            return answer()
        began = time.thread_time()
        said = answer()
        new = (time.thread_time() - began) / max(1, size)
        self._costs[route] = max(new, cost + FALL * (new - cost))
        return said
