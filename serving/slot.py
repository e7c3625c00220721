"""The slot: which version is live in this process, and how the next one gets there under load.

A watcher thread looks at the registry's pointer. A new version is loaded, rebuilt, checked and warmed up beside the
live one; only then one reference is replaced. Requests that began before keep the version they began with.

```
pointer moved -> load -> build -> succession -> warm-up -> live        (the old one is retired: kept for a rollback)
                   └───────┴──────────┴───────────┴──> rejected: one log line, one counter, the live one stays
```
The registry is only read. What is remembered, LAST_GOOD, lives in the server's own folder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, final

import torch

from lifelong import files
from lifelong.errors import LifelongError, NotFound, Unavailable
from lifelong.release.registry import Pointer, Registry
from serving.lastgood import LastGood
from serving.live import Floats, Live, brought, check_succession, manifest_id, unreadable
from serving.rejected import Rejection, Rejections, reason
from serving.shelf import Shelf
from serving.steps import SWAPS, Swap, gate, step
from serving.trials import Trials

CURRENT, LAST_GOOD = "CURRENT", "LAST_GOOD"

log = logging.getLogger("lifelong.serving")


class Observer(Protocol):
    """Who wants to know what happens to the slot."""

    def swapped(self, outcome: str, seconds: float) -> None:
        """A pointer was followed: `live`, `rollback` or `rejected`."""

    def polled(self) -> None:
        """The pointer was looked at."""


@final
class Slot:
    """The live version of this process.

    Args:
        registry: Folder of the registry; it may appear later.
        shelf: The gallery.
        state: Folder for LAST_GOOD.
        observer: Is told of every change.
        poll_seconds: Between two looks at the pointer.
        keep: Retired versions to keep in memory.
    """

    def __init__(
        self,
        registry: Path,
        shelf: Shelf,
        state: Path,
        observer: Observer,
        *,
        poll_seconds: float = 0.05,
        keep: int = 2,
    ) -> None:
        self.root, self.shelf, self.observer = registry, shelf, observer
        self.poll_seconds, self.keep = poll_seconds, keep
        self.pointer: Pointer | None = None
        self._last_good = LastGood(state / LAST_GOOD)
        self._live: Live | None = None
        self._retired: OrderedDict[tuple[int, str], Live] = OrderedDict()
        self._rejected = Rejections()
        self.trials = Trials(shelf, self._reject)
        self._seen: tuple[int, int, int] | None = None  # the pointer file that was followed
        self._missing: tuple[int, int, int] | None = None  # the one that names a version which is not there
        self._flip = threading.Lock()  # held while rows are written, so that none is written for a replaced version
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._told = ""  # the watcher's last failure
        self.swaps: deque[Swap] = deque(maxlen=SWAPS)  # newest first

    @property
    def live(self) -> Live:
        """The live version with the gallery as it is now: take it once per request.

        Raises:
            Unavailable: Nothing is live.
        """
        live = self._live
        if live is None:
            raise Unavailable(self._why_not())
        return live.bound(self.shelf.view())

    @property
    def version(self) -> int | None:
        """Number of the live version, None if there is none."""
        return self._live.version if self._live else None

    @property
    def retired(self) -> list[int]:
        """Versions kept in memory, the last replaced one first."""
        return list(self.kept)

    @property
    def kept(self) -> dict[int, Live]:
        """The same with their models."""
        return {version: live for (version, _), live in reversed(list(self._retired.items()))}

    @property
    def rejected(self) -> list[Rejection]:
        """What was refused, newest first."""
        return self._rejected.newest_first()

    def start(self) -> None:
        """Go live with the pointer's version, else with the last good one, and follow the pointer."""
        version = self._last_good.read()
        if version is not None and (registry := self.registry()) is not None:
            self._try(registry, version, remembered=version)
        self.refresh()
        self._stop.clear()
        self._watcher = threading.Thread(target=self._watch, name="lifelong-slot", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop following the pointer; what is live stays live."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None

    def refresh(self) -> bool:
        """Look at the pointer once and follow it; return whether another version is live now."""
        seen = files.signature(self.root / CURRENT)
        if seen is None or seen == self._seen or (registry := self.registry()) is None:
            return False
        before = self._live
        try:
            self.pointer = registry.pointer()
        except NotFound as error:  # a mount may show the pointer before the version: look again, complain once
            if self._missing != seen:
                self._missing = seen
                self._reject(Rejection(None, None, reason(error)))
            return False
        except LifelongError as error:
            self._reject(Rejection(None, None, reason(error)))
        else:
            if self.pointer is not None:
                self._try(registry, self.pointer.version, remembered=self._last_good.read())
        self._seen = seen
        return self._live is not before

    def add(self, ids: list[str | int], x: Floats, payload: list[dict[str, Any]] | None) -> tuple[Live, int]:
        """Embed and store samples; return the version that did it and the sequence number.

        If a swap comes in between, the samples are embedded again: a vector must not be stored for a version that
        the new one may not be able to read.
        """
        while True:
            live = self.live
            vectors = live.embed(x)
            with self._flip:
                if self._live is not None and self._live.model is live.model:
                    return live, self.shelf.add(ids, vectors, live.space, payload)

    def _try(self, registry: Registry, version: int, remembered: int | None) -> None:
        """Make `version` live, or reject it; never raises."""
        started, sha256, before, loaded = time.perf_counter(), None, self.version, False
        flip: dict[str, float] = {}
        try:
            key = version, (sha256 := manifest_id(registry, version))
            if key in self._rejected or (self._live and (self._live.version, self._live.sha256) == key):
                return
            kept = self._retired.get(key) or self.trials.find(*key)
            # Later versions may have proven since that what was kept reads them.
            candidate = replace(kept, space=registry.space(version)) if kept else brought(registry, version, sha256)
            loaded = True
            with step("flip", flip):
                lost = self._replace(candidate, remembered, lambda: registry.breaks(version, before or remembered))
        except Exception as error:  # noqa: BLE001 - whatever a bad artifact raises, the live version stays
            self._reject(Rejection(version, sha256, reason(error), loaded or isinstance(error, OSError), gate(error)))
            return
        outcome, seconds = "rollback" if version < (before or 0) else "live", time.perf_counter() - started
        self.swaps.appendleft(Swap(version, outcome, time.time(), seconds, {**candidate.took, **flip}))
        self.observer.swapped(outcome, seconds)
        log.info("version=%d is live outcome=%s seconds=%.3f space=%s", version, outcome, seconds, candidate.space.id)
        if lost:
            log.warning("version=%d level=%s cannot read %d rows of the gallery", version, candidate.level, lost)
        self._last_good.write(version)

    def _replace(self, candidate: Live, remembered: int | None, major: Callable[[], bool]) -> int:
        """Let it answer from now on, and return how many rows of the gallery it cannot read."""
        with self._flip:
            old, known = self._live, (self.version or remembered or 0)
            back = candidate.version < known or (old is None and candidate.version == known)
            rows = self.shelf.view().stats().by_space
            check_succession(candidate, old, rows, back=back, major=major)
            self._live = candidate
        self._retired.pop((candidate.version, candidate.sha256), None)
        if old is not None:
            self._retired[old.version, old.sha256] = replace(old, took={})  # to go back to it takes none of that
        while len(self._retired) > self.keep:
            self._retired.popitem(last=False)
        return unreadable(candidate, rows)

    def _reject(self, rejection: Rejection) -> None:
        self._rejected.put(rejection)
        self.observer.swapped("rejected", 0.0)
        log.error("rejected version=%s live=%s reason=%s", rejection.version, self.version, rejection.reason)

    def registry(self) -> Registry | None:
        """Return the registry, None while it is not there."""
        with suppress(NotFound):
            return Registry(self.root)
        return None

    def _try_others(self) -> None:
        if (registry := self.registry()) is not None:
            self.trials.refresh(registry, self._live)

    def _why_not(self) -> str:
        if refused := self._rejected.newest_first():
            return f"nothing is live; the last candidate was refused: {refused[0].reason}"
        return f"nothing is live yet; publish a version to {self.root}"

    def _watch(self) -> None:
        torch.set_num_threads(1)  # OpenMP counts per thread
        while not self._stop.wait(self.poll_seconds):
            self._step(self.refresh)
            self._step(self._try_others)
            self._step(self.shelf.refresh)
            self._step(self.observer.polled)

    def _step(self, act: Callable[[], object]) -> None:
        """Do one thing of each round; what fails is told once and must not end the watching."""
        try:
            act()
        except Exception as error:
            if self._told != repr(error):
                self._told = repr(error)
                bug = None if isinstance(error, LifelongError) else error  # a disk that is full is none
                log.error("the watcher failed and goes on: %s", error, exc_info=bug)
