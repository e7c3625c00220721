"""Which version answers a request: the one it pins, the canary if its key falls to it, else the live one.

A version is chosen once and answers all of a request. If a canary fails, the live version answers all of it instead:
a trial costs nobody an answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar, final

from lifelong.errors import DataError, LifelongError, NotFinite, NotFound
from serving.exchange import Exchange, assigned
from serving.forms import Form
from serving.live import Floats, Live
from serving.mirror import Mirror
from serving.slot import Slot

Said = TypeVar("Said")


@final
class Router:
    """Chooses among what the slot and its trials hold.

    Args:
        slot: The live version, and those beside it.
        mirror: Counts what comes of it, and asks the shadow.
    """

    def __init__(self, slot: Slot, mirror: Mirror) -> None:
        self.slot, self.mirror = slot, mirror

    def pick(self, exchange: Exchange, pinned: object = None, space: str | None = None) -> Live:
        """Return the version for a request, bound to the gallery as it is now.

        Args:
            exchange: The request; its key decides between live version and canary.
            pinned: The version that its form asks for, or None; else the one in its head counts.
            space: That its vectors are of, if it brings vectors: whichever of both writes it is taken.

        Raises:
            NotFound: The pinned version is not held (any more); the message lists those that are.
            Unavailable: Nothing is live.
        """
        live = self.slot.live
        if wanted := _number(exchange.pinned if pinned is None else pinned):
            return self._pinned(wanted, live).bound(live.view)
        beside = self.slot.trials.beside
        canary, trial = beside.canary, beside.rollout.canary
        if canary is None or trial is None or canary.version == live.version:
            return live
        chosen = assigned(exchange.key, canary.version) < trial.share
        if space in (live.space.id, canary.space.id) and live.space.id != canary.space.id:
            chosen = space == canary.space.id
        return canary.bound(live.view) if chosen else live

    def answer(self, form: Form, ask: Callable[[Live], Said], space: str | None = None) -> tuple[Live, Said]:
        """Return the version that answered, and what it said."""
        live, started = self.pick(form.exchange, getattr(form, "model_version", None), space), time.perf_counter()
        is_canary = live.version != self.slot.version and self._is_canary(live)
        try:
            said = ask(live)
        except Exception as error:
            if isinstance(error, LifelongError) and not isinstance(error, NotFinite):
                raise
            if not is_canary:
                self.mirror.live_failed(live, form)
                raise
            live, said = self._instead(ask, live, error)
        else:
            if is_canary or live.version == self.slot.version:
                self.mirror.answered("canary" if is_canary else "live", live, time.perf_counter() - started)
        return live, said

    def told(self, form: Form, live: Live, x: Floats, best: list[int]) -> None:
        """Let the version that did not answer a `predict` say what it would have; in the background."""
        self.mirror.compare(form.exchange.key, live, x, best)

    def _instead(self, ask: Callable[[Live], Said], canary: Live, error: Exception) -> tuple[Live, Said]:
        live = self.slot.live
        said = ask(live)  # if this fails as well, the samples were to blame and not the canary
        self.mirror.canary_failed(canary, nan=isinstance(error, NotFinite))
        return live, said

    def _is_canary(self, live: Live) -> bool:
        canary = self.slot.trials.beside.canary
        return canary is not None and canary.model is live.model

    def _pinned(self, version: int, live: Live) -> Live:
        held = {live.version: live, **self.slot.trials.beside.held, **self.slot.kept}
        if version not in held:
            have = ", ".join(f"{n} (live)" if n == live.version else str(n) for n in sorted(held, reverse=True))
            raise NotFound(f"version {version} is not held here; held are: {have}; or leave model_version out")
        return held[version]


def _number(pinned: object) -> int:
    if pinned in (None, ""):
        return 0
    if isinstance(pinned, str) and pinned.isascii() and pinned.isdigit() and len(pinned) < 10:
        pinned = int(pinned)
    if isinstance(pinned, bool) or not isinstance(pinned, int) or pinned < 1:
        raise DataError("model_version must be the number of a version, from 1; /v1/versions lists them")
    return pinned
