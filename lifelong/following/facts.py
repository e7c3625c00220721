"""What people watch: the numbers of a run, and how far it is behind its source."""

from __future__ import annotations

from typing import Any

from lifelong.errors import LifelongError
from lifelong.following.intake import Intake
from lifelong.following.trainee import Trainee


def facts(trainee: Trainee, intake: Intake) -> dict[str, Any]:
    """Return counts, figures, the newest version and what the strategy says of itself."""
    publisher, counters = trainee.publisher, trainee.learner.counters
    return {
        **intake.counts, "late": intake.counts["late"] + intake.source.late, **counters,
        "window": trainee.windows.index, "loss": trainee.loss, "letters": len(intake.dead.letters),
        "version": publisher.last, "published": publisher.published, "refused": publisher.refused,
        **trainee.prequential.figures(), **trainee.canary.figures(), **trainee.learner.strategy.summary(),
    }  # fmt: skip


def lag(intake: Intake) -> int | None:
    """Return how many records are there that have not been learned.

    None where the source cannot say: it is away, its offsets do not count records, or its partitions follow each other.
    What was deleted or left out when it was written may count as well.
    """
    source = intake.source
    if source.sequential or not source.counted:
        return None
    try:
        first, last = source.first(), source.last()
    except LifelongError:
        return None
    done = {partition: intake.positions.get(partition, first.get(partition, 0) - 1) for partition in last}
    return sum(max(0, offset - done[partition]) for partition, offset in last.items())
