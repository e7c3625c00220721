"""Where one experience ends and the next begins: by count, time, declaration or drift, or never."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from torch import Tensor

from lifelong.following.adwin import Adwin
from lifelong.following.settings import Follow
from lifelong.following.shift import Shift

DELTA, BURN_IN = 0.005, 30  # of Page's test, as River has them


@final
class PageHinkley:
    """Page's test for a rise of a mean: errors that become more frequent than they used to be.

    Source: Page 1954, "Continuous Inspection Schemes"; the running-mean form of Gama et al. 2014.

    Args:
        threshold: Sum of the excess at which it is a drift.
        delta: Rise of the mean that is tolerated.
        burn_in: Values before the first alarm.
    """

    def __init__(self, threshold: float, delta: float = DELTA, burn_in: int = BURN_IN) -> None:
        self.delta, self.threshold, self.burn_in = delta, threshold, burn_in
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self.count, self.mean, self.sum, self.least = 0, 0.0, 0.0, 0.0

    def update(self, value: float) -> bool:
        """Take one value; return whether it completes a drift (then everything is forgotten)."""
        self.count += 1
        self.mean += (value - self.mean) / self.count
        self.sum += value - self.mean - self.delta
        self.least = min(self.least, self.sum)
        found = self.count >= self.burn_in and self.sum - self.least > self.threshold
        if found:
            self.reset()
        return found

    def state(self) -> dict[str, Any]:
        """Return the four numbers."""
        return {"count": self.count, "mean": self.mean, "sum": self.sum, "least": self.least}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.count, self.mean, self.sum, self.least = state["count"], state["mean"], state["sum"], state["least"]


@final
class Windows:
    """The experience that is open, and when it is to be closed.

    Args:
        settings: `window` says what cuts.
    """

    def __init__(self, settings: Follow) -> None:
        self.by, self.amount = settings.cut
        self.cuts, self.consolidates = settings.cuts, "consolidate" in settings.actions
        self.shift = Shift(self.amount) if self.by == "shift" else None
        self.drift = Adwin(self.amount) if self.by == "adwin" else PageHinkley(self.amount)
        self.index = 0  # of the open one, or of the next
        self.samples = 0  # in the open one; 0 is that none is open
        self.start, self.task = 0.0, -1  # time and declared task of its first sample

    @property
    def room(self) -> int | None:
        """Samples that the open one may still take; None is any number."""
        return int(self.amount) - self.samples if self.by == "count" else None

    def belongs(self, time: float, task: int, first: tuple[float, int] | None) -> bool:
        """Return whether a sample belongs to the window that is open, or that begins with the sample `first`."""
        start, begun = (self.start, self.task) if self.samples else first or (time, task)
        if self.by == "time":
            return time < start + self.amount
        return self.by != "declared" or task == begun

    def take(self, samples: int, first: tuple[float, int]) -> bool:
        """Count samples into the open window; return whether they opened it."""
        opened = not self.samples
        if opened:
            self.start, self.task = first
        self.samples += samples
        return opened

    @property
    def full(self) -> bool:
        """Whether the open window ends by its number of samples."""
        return self.by == "count" and self.samples >= self.amount

    def drifted(self, errors: Sequence[bool], inputs: Sequence[Tensor], embed: Callable[[Tensor], Tensor]) -> bool:
        """Return whether the stream has changed with samples that were learned just now.

        Args:
            errors: Which of them were predicted wrong.
            inputs: The samples themselves.
            embed: Returns embeddings `[N, D]` of inputs `[N, ...]`.
        """
        if self.shift is not None:
            return self.shift.update(inputs, embed)
        return self.by in ("drift", "adwin") and any(self.drift.update(float(error)) for error in errors)

    def close(self) -> None:
        """Go on to the next window."""
        self.index, self.samples = self.index + 1, 0
        self.drift.reset()

    def state(self) -> dict[str, Any]:
        """Return where it is."""
        at = {"index": self.index, "samples": self.samples, "start": self.start, "task": self.task}
        return {**at, "drift": self.drift.state(), "shift": self.shift.state() if self.shift else {}}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.index, self.samples, self.start, self.task = (state[k] for k in ("index", "samples", "start", "task"))
        self.drift.restore(state["drift"])
        if self.shift:
            self.shift.restore(state["shift"])
