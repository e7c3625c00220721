"""What two versions say to the same samples, compared in the background, and what follows if one of them is bad.

One thread with a short queue: what does not fit is dropped and counted, so a slow shadow never slows an answer down.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch

from lifelong.errors import LifelongError
from lifelong.release.rollout import Limits, Rollouts
from lifelong.telemetry import FAST, Telemetry
from serving import decode
from serving.exchange import assigned
from serving.forms import Form
from serving.live import Floats, Live
from serving.slot import Slot

log = logging.getLogger("lifelong.serving")
WAITING = 64  # comparisons that may wait


@final
@dataclass
class Tally:
    """What came of one version since it was tried, in this worker."""

    answered: int = 0
    errors: int = 0
    nans: int = 0
    compared: int = 0
    agreed: int = 0
    seconds: float = 0.0
    times: list[int] = field(default_factory=lambda: [0] * (len(FAST) + 1))  # answers, by how long they took

    def took(self, seconds: float) -> None:
        """Count an answer."""
        self.answered += 1
        self.seconds += seconds
        self.times[bisect_left(FAST, seconds)] += 1

    def numbers(self) -> dict[str, float]:
        """Return what is shown of it."""
        return {name: value for name, value in vars(self).items() if name != "times"}

    def broken(self, limits: Limits) -> str:
        """Return which limit it broke, in words; empty if none."""
        asked = self.answered + self.errors + self.nans
        if self.nans > limits.nans:
            return f"{self.nans} answers were not finite where the live version's were"
        if asked >= limits.least and self.errors > limits.errors * asked:
            return f"{self.errors} of {asked} requests failed"
        if self.compared >= limits.least and self.agreed < limits.agreement * self.compared:
            return f"it agrees on {self.agreed} of {self.compared} samples"
        return ""


@final
class Mirror:
    """Asks, counts, and stops what is bad.

    Args:
        slot: The versions.
        telemetry: Counts.
        guard: Limits of a version that has just gone live: over them, the one before it is put back.
    """

    def __init__(self, slot: Slot, telemetry: Telemetry, guard: Limits) -> None:
        self.slot, self.telemetry, self.guard = slot, telemetry, guard
        self.tallies: dict[tuple[str, int], Tally] = {}
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="lifelong-mirror", daemon=True)
        self._ended: set[tuple[str, int]] = set()

    def start(self) -> None:
        """Begin to work on what waits."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def tally(self, kind: str, version: int) -> Tally:
        """Return the counts of a version; those of versions that are tried no more are forgotten."""
        if (kind, version) not in self.tallies:
            same = [key for key in self.tallies if key[0] == kind]
            for key in same[:-3]:  # late ones of the version before must not take the place of this one's
                self.tallies.pop(key, None)
            self.tallies[kind, version] = Tally()
        return self.tallies[kind, version]

    def answered(self, kind: str, live: Live, seconds: float) -> None:
        """Count an answer."""
        self.tally(kind, live.version).took(seconds)
        if kind == "canary":
            self.telemetry.count("lifelong_canary_requests_total", outcome="answered")

    def canary_failed(self, canary: Live, *, nan: bool) -> None:
        """Count a request that the live version had to answer instead."""
        tally = self.tally("canary", canary.version)
        tally.nans += nan
        tally.errors += not nan
        self.telemetry.count("lifelong_canary_requests_total", outcome="nan" if nan else "error")
        self._judge_canary(canary)

    def live_failed(self, live: Live, form: Form) -> None:
        """Find out whether the version before would have answered; if so, it is the live one that is broken."""
        kept = self.slot.kept
        before = kept[next(iter(kept))] if kept and live.version == self.slot.version else None
        x = getattr(form, "x", None)
        if before is not None and x is not None:
            self._later(lambda: self._blame(live, before, x))

    def compare(self, key: str, live: Live, x: Floats, best: list[int]) -> None:
        """Ask the shadow what it says, or the live version about what the canary said."""
        beside, current = self.slot.trials.beside, self.slot
        shadow, trial, canary = beside.shadow, beside.rollout.shadow, beside.canary
        if canary is not None and canary.model is live.model:
            self._later(lambda: self._ask("canary", current.live, canary, x, best))
        elif shadow is not None and trial is not None and live.version == current.version:
            if assigned(key, f"shadow-{shadow.version}") >= trial.share:
                return
            self._later(lambda: self._ask("shadow", shadow, live, x, best))

    def _ask(self, kind: str, other: Live, served: Live, x: Floats, best: list[int]) -> None:
        tried = served if kind == "canary" else other
        tally, started = self.tally(kind, tried.version), time.perf_counter()
        try:
            indices = [best for (best,) in other.predict(x, 1)[1]]
        except LifelongError:
            tally.nans += kind == "shadow"
            self.telemetry.count("lifelong_compared_total", kind=kind, outcome="failed")
            return
        same = sum(other.labels[i] == served.labels[j] for i, j in zip(indices, best, strict=True))
        tally.compared += len(best)
        tally.agreed += same
        if kind == "shadow":
            tally.took(time.perf_counter() - started)
        self.telemetry.observe("lifelong_compared_seconds", time.perf_counter() - started, kind=kind)
        self.telemetry.count("lifelong_compared_total", same, kind=kind, outcome="agree")
        self.telemetry.count("lifelong_compared_total", len(best) - same, kind=kind, outcome="differ")
        if kind == "canary":
            self._judge_canary(served)

    def _judge_canary(self, canary: Live) -> None:
        why = self.tally("canary", canary.version).broken(self.slot.trials.beside.rollout.limits)
        if why:
            self.slot.trials.veto(canary.version)
            self._later(lambda: self._end("canary", canary.version, why))

    def _blame(self, live: Live, before: Live, x: object) -> None:
        before.predict(decode.samples(x, before.shape, 65536), 1)  # raises if the samples were to blame
        tally = self.tally("live", live.version)
        tally.errors += 1
        if (why := tally.broken(self.guard)) and self.slot.version == live.version:
            self._end("live", live.version, why)

    def _end(self, kind: str, version: int, why: str) -> None:
        if (kind, version) in self._ended:
            return
        self._ended.add((kind, version))
        self.telemetry.count("lifelong_automatic_rollbacks_total", kind=kind)
        log.error("%s version=%d is taken back: %s", kind, version, why)
        who, registry = f"server:{os.getpid()}", self.slot.registry()
        if registry is None:
            return
        if kind == "canary":
            Rollouts(registry).stop("canary", who=who, why=why, version=version)
        elif (pointer := registry.pointer()) and pointer.version == version:
            registry.rollback(None, who=who, why=why, key=f"server-{pointer.seq}")  # the first worker to say so

    def _later(self, act: Callable[[], None]) -> None:
        try:
            self._queue.put_nowait(act)
        except queue.Full:
            self.telemetry.count("lifelong_compared_total", kind="any", outcome="dropped")

    def _work(self) -> None:
        torch.set_num_threads(1)  # OpenMP counts per thread
        while (act := self._queue.get()) is not None:
            try:
                act()
            except LifelongError as error:
                log.warning("a comparison came to nothing: %s", error)
            except Exception:
                log.exception("a comparison failed")
