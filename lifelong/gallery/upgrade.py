"""Opportunistic upgrade: rows whose originals are at hand get the vectors of a newer model, beside everything else.

Nothing needs it: rows of older spaces stay searchable. Nor does it keep notes: what is left to do is what is not yet in
the new space, so after a kill the same call goes on, and no row is embedded twice. A row that somebody removes or
overwrites meanwhile is left as it is then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lifelong.errors import ConfigError
from lifelong.gallery.base import Gallery, Row
from lifelong.types import Space

Embed = Callable[[Sequence[Row]], Mapping[str, np.ndarray[Any, Any]]]
PAGE = 512  # rows read at once


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upgrade is.

    Args:
        rows: That were there when it began.
        looked: Of these, looked at (those that the gallery has lost since are not).
        renewed: Have new vectors, by this call.
        ready: Were in the new space already.
        absent: Their originals are not at hand.
        changed: Were removed or overwritten while they were embedded.
    """

    rows: int
    looked: int = 0
    renewed: int = 0
    ready: int = 0
    absent: int = 0
    changed: int = 0


def upgrade(
    gallery: Gallery,
    space: Space,
    embed: Embed,
    *,
    rate: float = 100.0,
    batch: int = 64,
    stop: threading.Event | None = None,
    told: Callable[[Progress], object] | None = None,
) -> Progress:
    """Give rows of other spaces new vectors, oldest first; rows that are written meanwhile are not looked at.

    Args:
        gallery: Open for writing. A folder has one writer: upgrade in that process, or while it is stopped.
        space: Of the new model.
        embed: Returns vectors `[D]` by id, of those rows whose originals it has.
        rate: Rows embedded per second, at most; `math.inf` for no limit.
        batch: Rows embedded, and made durable, at once.
        stop: Ends it after the current batch, once set.
        told: Is told after each batch.

    Raises:
        ConfigError: `rate` or `batch` is out of range.
        DataError: A vector is not one of `space`.
        SpaceError: The space is known with another width or family.
    """
    if not rate > 0 or batch < 1:
        raise ConfigError(f"need rate > 0 and batch >= 1, got rate={rate} and batch={batch}")
    stop = stop or threading.Event()
    last, begun, asked, after = gallery.refresh(), time.monotonic(), 0, 0
    done = Progress(gallery.stats().rows)
    while page := [row for row in gallery.rows(after, PAGE) if row.seq <= last]:
        old = [row for row in page if row.space != space.id]
        done = replace(done, looked=done.looked + len(page) - len(old), ready=done.ready + len(page) - len(old))
        for start in range(0, len(old), batch):
            if stop.wait(max(0.0, begun + asked / rate - time.monotonic())):
                return done
            some = old[start : start + batch]
            done, embedded = _renewed(gallery, space, some, embed(some), done)
            asked += embedded
            if told is not None:
                told(done)
        after = page[-1].seq
        gallery.refresh()
    return done


def _renewed(
    gallery: Gallery, space: Space, rows: Sequence[Row], made: Mapping[str, np.ndarray[Any, Any]], done: Progress
) -> tuple[Progress, int]:
    """Store what was made of `rows`; return how far it is then, and how many rows were embedded."""
    found = [row for row in rows if row.id in made]
    stored = gallery.renew(found, np.stack([made[row.id] for row in found]), space) if found else 0
    step = replace(
        done,
        looked=done.looked + len(rows),
        renewed=done.renewed + stored,
        absent=done.absent + len(rows) - len(found),
        changed=done.changed + len(found) - stored,
    )
    return step, len(found)
