"""A limit on how often one client may ask: a bucket of permits per client, refilled at a steady rate."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from typing import final

from serving.problems import Problem

MOST = 10_000  # clients that are remembered; the one that asked longest ago is forgotten, and starts with a full bucket


@final
class Rates:
    """Buckets by client.

    Args:
        per_second: Requests that a client may make in a second, over time; 0 is no limit.
        burst: Requests that it may make at once after a pause.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second, self.burst = per_second, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float | None = None) -> None:
        """Take a permit.

        Args:
            client: Name of its token, or its address.
            now: Seconds of a clock that never goes back.

        Raises:
            Problem: 429, with the seconds after which there is one again.
        """
        if not self.per_second:
            return
        now = time.monotonic() if now is None else now
        left, at = self._buckets.pop(client, (float(self.burst), now))
        left = min(float(self.burst), left + (now - at) * self.per_second)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        while len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        if left < 1:
            raise Problem(
                429,
                f"this client may make {self.per_second:g} requests per second; slow down",
                retry=math.ceil((1 - left) / self.per_second),
            )
