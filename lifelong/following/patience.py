"""A source that is gone is asked until it answers, and the shape of its samples is that of most of the first ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import TypeVar

from lifelong.errors import LifelongError, Unavailable
from lifelong.sources.base import Source
from lifelong.sources.record import decode

log = logging.getLogger("lifelong.following")

RETRY_SECONDS = 5.0  # between two attempts to reach a source that is gone, at most
POLL_SECONDS = 1.0
FIRST = 32  # samples among which most have to be of one shape
FEW = 5  # of them are enough where no more come
T = TypeVar("T")


def patiently(ask: Callable[[], T], stop: Event, waiting: Callable[[str], None]) -> T | None:
    """Ask a source until it answers, logging once that it does not; None if the run is to stop.

    Args:
        ask: Raises `Unavailable` while it is gone.
        stop: Set to give up.
        waiting: Told each time why it is gone.
    """
    pause, missed = 0.25, False
    while not stop.is_set():
        try:
            found = ask()
        except Unavailable as error:
            if not missed:
                log.warning("%s; trying again until it answers, nothing is lost", error)
            missed = True
            waiting(str(error))
            stop.wait(pause)
            pause = min(2 * pause, RETRY_SECONDS)
        else:
            if missed:
                log.warning("the source answers again")
            return found
    return None


def first_shape(source: Source, stop: Event, waiting: Callable[[str], None], ends: bool) -> list[int] | None:
    """Return the shape of more than half of the first samples; None if the run is to stop.

    Args:
        source: Read from where it is; what cannot be read there will be a dead letter.
        stop: Set to give up.
        waiting: Called again and again while too few are there, with the reason if the source is gone.
        ends: Take what there is where no more comes.
    """
    seen: Counter[tuple[int, ...]] = Counter()
    while not stop.is_set():
        found = patiently(lambda: source.poll(FIRST, POLL_SECONDS), stop, waiting) or []
        for record in found:
            with suppress(LifelongError):
                seen[tuple(decode(record.payload, source.limit).x.shape)] += 1
        if seen:
            (shape, count), *_ = seen.most_common(1)
            few = FIRST if found else FEW
            if (2 * count > seen.total() >= few) or (ends and not found):
                return list(shape)
        if not found:
            waiting("")
    return None
