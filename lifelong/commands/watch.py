"""What a run tells while it goes on (lines, a health file, systemd, metrics), and what signals tell it."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

import click

from lifelong.commands import systemd, tables
from lifelong.errors import LifelongError
from lifelong.following.facts import lag
from lifelong.following.follower import Follower
from lifelong.following.settings import Follow

log = logging.getLogger("lifelong.following")

BEAT_SECONDS = 1.0


class Observer(Protocol):
    """Who watches a run."""

    def beat(self, vital: Mapping[str, Any], now: bool = False) -> None:
        """Be told about once a second how the run is; `now` if it is the last time."""

    def happened(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Be told of an event."""


@final
class Watch:
    """Passes on what a follower tells, and acts on signals between two steps.

    Args:
        follower: That is watched.
        observers: Whom to tell.
        reload: Reads the settings again; None if there is no file to read them from.
    """

    def __init__(
        self, follower: Follower, observers: Sequence[Observer], reload: Callable[[], Follow] | None = None
    ) -> None:
        self.follower, self.observers, self._reload = follower, observers, reload
        self._due, self._asked = 0.0, False
        self._seen: dict[str, float | None] = {"lag": None, "last_commit": None, "version_since": None}
        follower.watch(self)

    def obey(self) -> None:
        """From now on SIGTERM and SIGINT stop the run, and SIGHUP has settings read again."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop())
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "_asked", True))

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Be told something by the follower."""
        if kind in ("step", "waiting"):
            why = facts.get("why", "")
            if self._asked and not why:
                self._asked = False
                self.reload()
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + BEAT_SECONDS
                self.beat("learning" if kind == "step" else f"waiting: {why}" if why else "waiting", ask=not why)
            return
        if kind in ("committed", "published"):
            self._seen["last_commit" if kind == "committed" else "version_since"] = time.time()
        for observer in self.observers:
            observer.happened(kind, facts)

    def beat(self, state: str, ask: bool = True, now: bool = False) -> None:
        """Tell everybody how the run is.

        Args:
            state: In a few words.
            ask: The source, how far behind it is.
            now: This is the last time.
        """
        follower = self.follower
        if ask:
            self._seen["lag"] = lag(follower.intake)
        facts = follower.facts()
        vital = {
            **facts, **self._seen, "state": state, "step": facts["steps"], "positions": follower.intake.positions,
            "reasons": follower.intake.dead.reasons,
        }  # fmt: skip
        for observer in self.observers:
            observer.beat(vital, now)

    def reload(self) -> None:
        """Read the settings again and go by them; what is wrong is said, and the run goes on with the old ones."""
        if self._reload is None:
            click.echo("nothing to read again: the run was started without --config", err=True)
            return
        try:
            changed = self.follower.change(self._reload())
        except LifelongError as error:
            click.echo(f"settings stay as they are: {error}", err=True)
            return
        told = ", ".join(f"{name} is {value}" for name, value in changed.items()) or "nothing has changed"
        click.echo(f"settings were read again: {told}", err=True)

    def _stop(self) -> None:
        systemd.notify("STOPPING=1")
        self.follower.stop.set()


@final
class Lines:
    """Prints what happens, and every second how far the run is.

    Args:
        as_json: Only events, as JSON.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json, self.last, self.seen = as_json, time.monotonic(), 0

    def beat(self, vital: Mapping[str, Any], now: bool = False) -> None:
        """Print one line, if something was learned."""
        if self.as_json or now or vital["samples"] == self.seen:
            return
        moment = time.monotonic()
        rate = (vital["samples"] - self.seen) / max(moment - self.last, 1e-9)
        self.last, self.seen = moment, vital["samples"]
        parts = [
            f"{vital['samples']} samples", f"{rate:.0f}/s",
            "" if vital["lag"] is None else f"{vital['lag']} behind", f"loss {vital['loss']:.3f}",
            f"right {vital['recent']:.3f} (all {vital['model']:.3f}, majority {vital['majority']:.3f}, "
            f"no change {vital['no_change']:.3f})",
            f"{vital['memory']:.0f} in memory" if "memory" in vital else "", f"{vital['letters']} dead letters",
            f"version {vital['version']}" if vital["version"] else "",
        ]  # fmt: skip
        click.echo(", ".join(part for part in parts if part))

    def happened(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Print what people want to know of."""
        if kind == "committed":
            return
        if self.as_json:
            tables.emit({kind: dict(facts)})
        elif kind in ("published", "refused"):
            click.echo(f"{kind} version {facts['version']}: {tables.checks(facts['report'])}")
        elif kind == "boundary":
            click.echo(f"window {facts['index']} ended after {facts['samples']} samples")
        elif kind == "drift":
            click.echo(f"the stream has changed, after {facts['samples']} samples")
        elif kind == "resumed":
            self.seen = facts["samples"]
            click.echo(f"going on after {facts['samples']} samples")
