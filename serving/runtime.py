"""What one worker process owns: settings, metrics, gallery and slot; made early, opened when the worker starts."""

from __future__ import annotations

import gc
import logging
import math
import os
import time
from functools import partial
from pathlib import Path
from typing import TypeVar, final

from lifelong.errors import Unavailable
from lifelong.release.health import FIGURES
from lifelong.release.registry import Registry
from lifelong.release.rollout import Limits
from lifelong.telemetry import Telemetry
from serving import logs
from serving.audit import Audit
from serving.auth import Keys
from serving.crew import Crew, report
from serving.ending import Ending
from serving.exchange import Exchange
from serving.following import Following
from serving.live import unreadable
from serving.mirror import Mirror
from serving.remembered import Remembered
from serving.router import Router
from serving.settings import Settings
from serving.shelf import Shelf
from serving.slot import Slot
from serving.stream import Stream
from serving.traces import Traces
from serving.traffic import Traffic

Part = TypeVar("Part")
GLANCE_SECONDS = 5.0
DRAINING = "this server is about to stop; ask another one"
log = logging.getLogger("lifelong.serving")


@final
class Runtime:
    """The state of one worker.

    Args:
        settings: Of the server.
        multiprocess: Folder through which workers share metrics, None for one process; BentoML sets it.
    """

    def __init__(self, settings: Settings, *, multiprocess: str | None = None) -> None:
        self.settings, self._multiprocess = settings, multiprocess
        self.keys, self.audit = Keys(settings), Audit(settings.state / "audit.jsonl")
        self._telemetry: Telemetry | None = None
        self.crew = Crew(settings.state / "workers")
        self.traffic = Traffic(self.crew)
        self.stream = Stream(Path(settings.stream or settings.state / "stream"), settings.feedback_backlog)
        self._following = Following(settings.remote, settings.registry, settings.remote_seconds)
        self._remembered: Remembered | None = None
        self._shelf: Shelf | None = None
        self._router: Router | None = None
        self._slot: Slot | None = None
        self._in_flight = 0
        self._traces: Traces | None = None
        self._level, self._handler = logging.NOTSET, logs.install(as_json=False)
        self.ending = Ending(settings.drain_seconds, os.getppid() if multiprocess else 0)
        self._shown: tuple[int | None, ...] = (-1,)  # what the gauges say
        self._spaces: set[str] = set()  # of which they say how many rows there are

    @property
    def slot(self) -> Slot:
        """The slot.

        Raises:
            Unavailable: The worker has not started.
        """
        return _started(self._slot)

    @property
    def router(self) -> Router:
        """What chooses the version of a request; raises like `slot`."""
        return _started(self._router)

    @property
    def mirror(self) -> Mirror:
        """What compares versions; raises like `slot`."""
        return self.router.mirror

    @property
    def remembered(self) -> Remembered:
        """Predictions that may be labelled; raises like `slot`."""
        return _started(self._remembered)

    @property
    def telemetry(self) -> Telemetry:
        """The metrics; raises like `slot`."""
        return _started(self._telemetry)

    def start(self) -> None:
        """Open everything, and go live if there is something to go live with; raises what its parts raise."""
        settings = self.settings
        self._level, self._handler = logs.level(logging.INFO), logs.install(as_json=settings.log_json)
        self._telemetry = Telemetry(folder=self._multiprocess, ask=self.traffic.readings)
        self._traces = Traces(settings.otlp_endpoint) if settings.otlp_endpoint else None
        self._shelf = Shelf(settings.gallery or settings.state / "gallery")
        self._slot = Slot(
            settings.registry, self._shelf, settings.state, self,
            poll_seconds=settings.poll_seconds, keep=settings.keep_retired,
        )  # fmt: skip
        lost = partial(self._telemetry.count, "lifelong_forgotten_predictions_total")
        self._remembered = Remembered(settings.state / "feedback" / "predictions.sqlite", settings.remember, lost)
        guard = Limits(errors=settings.guard_errors, nans=10**9, least=settings.guard_least)
        self._router = Router(self._slot, Mirror(self._slot, self._telemetry, guard))
        self._router.mirror.start()
        self._following.start()
        self._slot.start()
        self.ending.start()
        self.polled()
        gc.collect()
        gc.freeze()  # what lives for ever is not walked again: a full collection would stall everything for 100 ms
        log.info("ready=%s pid=%d registry=%s state=%s", self.ready(), os.getpid(), settings.registry, settings.state)

    def stop(self) -> None:
        """Close everything; the rows that were acknowledged are on disk already."""
        self._following.stop()
        self.ending.stop()
        slot, router, files = self._slot, self._router, (self._shelf, self._remembered, self._traces, self._telemetry)
        self._slot = self._shelf = self._router = self._remembered = self._traces = None
        if slot is not None:
            slot.stop()
        if router is not None:
            router.mirror.stop()
        for each in files:
            if each is not None:
                each.close()
        self.stream.close()
        self.audit.tick(0)
        self.crew.leave()
        logs.level(self._level)
        logs.remove(self._handler)
        gc.unfreeze()

    def ready(self) -> bool:
        """Return whether a version is live, and the worker is not about to end."""
        return self.version() is not None and not self.draining()

    def draining(self) -> bool:
        """Return whether the worker is about to end."""
        return self.ending.draining

    def registry(self) -> Registry:
        """Return the registry; raises `NotFound` where it is not there yet."""
        return Registry(self.settings.registry)

    def version(self) -> int | None:
        """Return the live version, if there is one."""
        return self._slot.version if self._slot else None

    def why_not(self) -> str:
        """Return why the worker is not ready, or an empty text."""
        try:
            _ = self.slot.live
        except Unavailable as error:
            return str(error)
        return DRAINING if self.draining() else ""

    def began(self) -> None:
        """A request is being worked on."""
        self._in_flight += 1

    def ended(self, exchange: Exchange, seconds: float) -> None:
        """The request was answered (499: the client had gone)."""
        self._in_flight -= 1
        if self._telemetry is not None:
            self._telemetry.tell("lifelong_requests_total", route=exchange.route, code=str(exchange.status))
            self._telemetry.observe("lifelong_request_seconds", seconds, route=exchange.route)
        if self._traces is not None:
            self._traces.ended(exchange, seconds, self.version())
        if self.settings.access_log and not exchange.calm:
            logs.answered(exchange, seconds)

    def audited(self, exchange: Exchange) -> None:
        """An admin call was answered; it is noted."""
        self.audit.write(exchange)

    def handled(self, route: str, rows: int) -> None:
        """So many samples, vectors or ids were worked on."""
        self.telemetry.tell("lifelong_rows_total", rows, route=route)

    def swapped(self, outcome: str, seconds: float) -> None:
        """A pointer was followed."""
        self.telemetry.count("lifelong_swaps_total", outcome=outcome)
        if outcome == "rejected":
            self.telemetry.count("lifelong_rejected_total", gate=self.slot.rejected[0].gate)
        else:
            self.crew.write(report(self.slot))  # before anything that waits for a disk
            self.telemetry.observe("lifelong_swap_seconds", seconds)
            for phase, took in self.slot.swaps[0].phases.items():
                self.telemetry.observe("lifelong_swap_phase_seconds", took, phase=phase)
            self.telemetry.gauge("lifelong_live_since_seconds", time.time())

    def polled(self) -> None:
        """Bring the gauges up to date, if anything moved; end if the server around this worker is gone."""
        self.ending.check()
        self.telemetry.flush()
        self.keys.refresh()
        self.audit.tick()
        if (slot := self._slot) is None or (shelf := self._shelf) is None:
            return
        self.crew.write(report(slot))
        self.traffic.write(slot, self.mirror.tallies)
        self.telemetry.gauge("lifelong_requests_in_flight", self._in_flight)
        beside, waiting = slot.trials.beside, self.stream.backlog()
        view, pointer = shelf.view(), slot.pointer.version if slot.pointer else 0
        # Segments come and go without a change of the rows: look again every few seconds.
        glance = int(time.monotonic() / GLANCE_SECONDS)
        shown = (view.sequence, slot.version, pointer, beside.rollout.seq, waiting, glance)
        if shown == self._shown:
            return
        self._shown, stats = shown, shelf.stats()
        lost = unreadable(slot.live, stats.by_space) if slot.version else 0
        for name, value in (
            ("lifelong_live_version", slot.version or 0),
            ("lifelong_pointer_version", pointer),
            ("lifelong_canary_version", beside.canary.version if beside.canary else 0),
            ("lifelong_canary_share", trial.share if beside.canary and (trial := beside.rollout.canary) else 0),
            ("lifelong_shadow_version", beside.shadow.version if beside.shadow else 0),
            ("lifelong_feedback_backlog", waiting),
            ("lifelong_gallery_rows", stats.rows),
            ("lifelong_gallery_unreadable_rows", lost),
            ("lifelong_gallery_sequence", stats.sequence),
            ("lifelong_gallery_segments", stats.segments),
            ("lifelong_gallery_bytes", stats.bytes),
            ("lifelong_gallery_refused_segments", stats.refused),
        ):
            self.telemetry.gauge(name, value)
        self._spaces |= stats.by_space.keys()
        for space in self._spaces:
            self.telemetry.gauge("lifelong_gallery_space_rows", stats.by_space.get(space, 0), space=space)
        health = slot.live.health if slot.version else {}
        for name in FIGURES:
            self.telemetry.gauge(f"lifelong_embedding_{name}", health.get(name, math.nan))


def _started(part: Part | None) -> Part:
    """Return a part of a server that has started; raise `Unavailable` before and after."""
    if part is None:
        raise Unavailable("the server is starting or stopping; try again in a moment")
    return part
