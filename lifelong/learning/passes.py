"""Which samples of a batch are new, when an experience is passed over several times."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, final

from lifelong.types import Batch, Experience


@final
class FirstPass:
    """Lets each sample of an experience through once: memories must not count a second epoch.

    Outside of an experience (a stream without boundaries) every sample is new.
    """

    def __init__(self) -> None:
        self.limit, self.offered = -1, 0

    def begin(self, experience: Experience) -> None:
        """Start counting; an experience of unknown length is taken to be passed over once."""
        self.offered = 0
        train = experience.train
        self.limit = len(train) if isinstance(train, Sized) else -1

    def new(self, batch: Batch) -> Batch:
        """Return the samples of `batch` that belong to the first pass (possibly none)."""
        if self.limit < 0:
            return batch
        room = max(0, self.limit - self.offered)
        self.offered += min(room, len(batch))
        return batch if room >= len(batch) else batch[:room]

    def end(self) -> None:
        """Stop counting."""
        self.limit = -1

    def state(self) -> dict[str, Any]:
        """Return the two counters."""
        return {"limit": self.limit, "offered": self.offered}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.limit, self.offered = state["limit"], state["offered"]
