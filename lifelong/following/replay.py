"""The same way again: a learner is led through the records that a version was made from, to the same bits.

Nothing but the records, the recipe and the version's own facts is used: not the run's folder, not its commits. The
batches are cut as they were, because a portion is a function of the records and of the state, and because the run
noted where it took a short batch at the end of what was there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

from lifelong.errors import ConfigError, DataError, RetentionGap
from lifelong.following.follower import Follower
from lifelong.following.merge import between, load, trained
from lifelong.following.settings import Follow
from lifelong.learning import Learner
from lifelong.plan import Plan
from lifelong.release.registry import Registry
from lifelong.sources.base import Record, Source

COMMIT_EVERY = 1000  # steps; a commit is only needed where a bad sample has to be found


class _Arrived(Exception):
    """The last record of the version has been learned."""


@final
class Leg(Source):
    """A source that ends where the run once found its end.

    Args:
        source: The whole stream; stays open.
        until: Offsets by partition of the last records; None is all of it. Positions are not noted there.
    """

    def __init__(self, source: Source, until: Mapping[str, int] | None = None) -> None:
        super().__init__(source.on_gap, source.limit)
        self.inner, self.until = source, until
        self.sequential, self.counted = source.sequential, source.counted

    def poll(self, limit: int, timeout: float = 0.0) -> list[Record]:
        """See `Source.poll`."""
        return [record for record in self.inner.poll(limit, timeout) if self._within(record)]

    def seek(self, positions: Mapping[str, int]) -> None:
        """See `Source.seek`."""
        self.inner.seek(positions)

    def first(self) -> dict[str, int]:
        """See `Source.first`."""
        return self.inner.first()

    def last(self) -> dict[str, int]:
        """See `Source.last`."""
        last = self.inner.last()
        if self.until is None:
            return last
        return {name: min(offset, last[name]) for name, offset in self.until.items() if name in last}

    def close(self) -> None:
        """Leave the stream open."""

    def _within(self, record: Record) -> bool:
        if self.until is None:
            return True
        if self.sequential:
            return (record.partition, record.offset) <= max(self.until.items())
        return record.offset <= self.until.get(record.partition, -1)


def rebuilt(
    make: Callable[[], Learner], source: Source, data: Mapping[str, Any], settings: Follow, plan: Plan
) -> Learner:
    """Return the learner after exactly the records of a version; its weights are not yet averaged.

    Args:
        make: Returns a fresh learner of the recipe.
        source: The stream, from its first record.
        data: Which records they were, as the manifest says it.
        settings: Of the stream, as the recipe says it.
        plan: What was held out, and by which seed.

    Raises:
        RetentionGap: The first of those records are gone.
        ConfigError: The way cannot be gone again: the clock had a say in it, or a person.
        DataError: The stream ends before the last of those records.
    """
    _refuse_unless_repeatable(data, settings)
    _refuse_unless_whole(source.first(), data)
    told = replace(
        settings, until="end", linger=0.0, commit_seconds=0.0, publish_samples=0, publish_seconds=0.0,
        publish_improvement=0.0, max_dead=1.0,
        merge="none",
    )  # fmt: skip
    ends: Sequence[Mapping[str, Any]] = data["ends"]
    with TemporaryDirectory(prefix="lifelong-replay-") as folder:

        def follower(part: Source) -> Follower:
            # Nobody looks at this registry: it is there because a share of the samples is the gate's.
            registry = Registry(Path(folder) / "registry", create=True)
            plans = replace(plan, commit_every=COMMIT_EVERY)
            return Follower(make, part, Path(folder) / "run", registry=registry, plan=plans, settings=told)

        for end in ends:
            last = follower(Leg(source, end["positions"]))
            last.run()
            if last.facts()["records"] != end["records"]:
                raise _another(last, end["records"])
            if end["records"] == data["records"]:
                return last.trainee.learner
        return _led(follower(Leg(source)), data)


def average(learner: Learner, training: Mapping[str, Any], registry: Registry, settings: Follow) -> None:
    """Average a learner's weights with those of the version that `merge=ema` averaged them with, if it did.

    Args:
        learner: After the records of a version.
        training: Of that version's manifest.
        registry: Of both versions; the other one can be made again by itself.
        settings: See `rebuilt`.

    Raises:
        ConfigError: The manifest does not name the other one.
        NotFound: The registry does not hold it.
    """
    if settings.merge != "ema" or training["merged"] < 2:
        return
    if "merged_with" not in training:
        raise ConfigError("this version cannot be made again: it does not say which version it was averaged with")
    now, old = trained(learner.model), registry.load(training["merged_with"]).weights
    load(learner.model, between({name: old[name] for name in now if name in old}, now, settings.merge_weight))


def _led(follower: Follower, data: Mapping[str, Any]) -> Learner:
    def watch(kind: str, facts: Mapping[str, Any]) -> None:
        if kind in ("step", "resumed") and facts["records"] == data["records"]:
            raise _Arrived

    follower.watch(watch)
    try:
        follower.run()
    except _Arrived:
        return follower.trainee.learner
    raise _another(follower, data["records"])


def _another(follower: Follower, records: int) -> DataError:
    return DataError(
        f"after {follower.facts()['records']} records of the stream, no batch ends after {records}, as one "
        "of the version did; it is not the stream that the version was made from"
    )


def _refuse_unless_repeatable(data: Mapping[str, Any], settings: Follow) -> None:
    for found, why in (
        (settings.merge == "soup", "its weights were merged with candidates that nobody kept (merge=soup)"),
        (settings.linger, "its batches were cut by the clock (linger)"),
        (data["replayed"], f"{data['replayed']} dead letters were tried again by hand"),
        (data["gaps"], "records were missing from its stream already (on_gap=skip)"),
    ):
        if found:
            raise ConfigError(f"this version cannot be made again: {why}")


def _refuse_unless_whole(first: Mapping[str, int], data: Mapping[str, Any]) -> None:
    for partition, start in data["start"].items():
        if first.get(partition, start + 1) > start:
            left = first.get(partition, "none")
            raise RetentionGap(
                f"the version was made from partition {partition!r} at offset {start} on, and the first record that is "
                f"left there is {left}; restore the records from a copy"
            )
