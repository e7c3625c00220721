"""A window of errors that is as long as nothing changes in it.

Source: ADWIN2, Bifet and Gavalda 2007, "Learning from Time-Changing Data with Adaptive Windowing", sections 3 and 4:
    the window as an exponential histogram, and the cut by variance (equation 3.1) with delta / ln(n) at its borders.
Differs: looked at once in `EVERY` values. A mean that falls shortens the window, but is no alarm: a model that learns
    errs less and less. After an alarm it begins anew, as River's does: one change is one alarm.
Checked: windows against the values themselves, cuts against the equation, few alarms where nothing changes, a shift
    is found, exact resume (tests/test_adwin.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, final

BUCKETS = 5  # of each size; of more the two oldest become one of twice the size
EVERY = 32  # values between two looks


@final
class Adwin:
    """Finds a rise of the mean of zeros and ones.

    Args:
        delta: Probability of a false alarm at each look, at most; 0 < delta < 1.
    """

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self.seen = self.width = 0
        self.total = 0.0
        self.rows: list[list[float]] = [[]]  # sums of 1, 2, 4, ... values; in each row the oldest first

    def update(self, value: float) -> bool:
        """Take one value, 0 or 1; return whether it completes a rise (then everything is forgotten)."""
        self.seen, self.width, self.total = self.seen + 1, self.width + 1, self.total + value
        self.rows[0].append(value)
        for i, row in enumerate(self.rows):
            if len(row) <= BUCKETS:
                break
            if i + 1 == len(self.rows):
                self.rows.append([])
            self.rows[i + 1].append(row.pop(0) + row.pop(0))
        found = self.seen % EVERY == 0 and self._cut()
        if found:
            self.reset()
        return found

    def _cut(self) -> bool:
        """Drop the oldest values as long as they differ from the others; return whether the others were larger."""
        rose = False
        while change := self._change():
            rose |= change > 0
            self.width -= 1 << (len(self.rows) - 1)
            self.total -= self.rows[-1].pop(0)
            if not self.rows[-1]:
                self.rows.pop()
        return rose

    def _change(self) -> float:
        """Return by how much the mean changes at the first border where it does, oldest first; 0 if at none."""
        count = total = 0.0
        mean = self.total / self.width
        level = math.log(2 * math.log(self.width) / self.delta) if self.width > 2 else math.inf
        for size, value in self._buckets():
            count, total = count + size, total + value
            if (rest := self.width - count) < 1:
                break
            change = (self.total - total) / rest - total / count
            inverse = 1 / count + 1 / rest
            if abs(change) > math.sqrt(2 * inverse * mean * (1 - mean) * level) + 2 / 3 * inverse * level:
                return change
        return 0.0

    def _buckets(self) -> Iterator[tuple[int, float]]:
        """Yield size and sum of each bucket, oldest first."""
        for i in reversed(range(len(self.rows))):
            for value in self.rows[i]:
                yield 1 << i, value

    def state(self) -> dict[str, Any]:
        """Return the window."""
        return {"seen": self.seen, "rows": [list(row) for row in self.rows]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.seen, self.rows = state["seen"], [list(row) for row in state["rows"]]
        self.width = sum(len(row) << i for i, row in enumerate(self.rows))
        self.total = math.fsum(sum(row) for row in self.rows)
