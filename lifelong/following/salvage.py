"""Finding the samples that break a step, among others that do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from lifelong.following.dead import Letter
from lifelong.following.portion import Row
from lifelong.following.trainee import Trainee
from lifelong.learning.checkpoint import State

log = logging.getLogger("lifelong.following")


def salvage(
    rows: Sequence[Row], why: str, trainee: Trainee, copy: Callable[[], State], restore: Callable[[State], None]
) -> tuple[list[Row], list[Letter]]:
    """Learn rows in halves, and what cannot be learned not at all; return what was learned, and the rest as letters.

    Args:
        rows: Of one portion.
        why: What was wrong with them together.
        trainee: That learns them.
        copy: Returns everything as it is.
        restore: Takes that back.
    """
    letters, good, todo = list[Letter](), list[Row](), [list(rows)]
    while todo:
        part, before = todo.pop(), copy()
        said, _ = trainee.take(part, careful=True)
        if not said:
            good += part
            continue
        restore(before)
        if len(part) > 1:
            todo += [part[len(part) // 2 :], part[: len(part) // 2]]
        else:
            letters.append(Letter(part[0].record, said, reason="step"))
    log.warning("%s: %d of %d samples are dead letters now", why, len(letters), len(rows))
    return good, letters
