"""Two grids beside each other: the same bytes, or what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lifelong import files
from lifelong.bench.job import Job
from lifelong.bench.store import Store
from lifelong.bench.tables import ran_on


def differences(one: Store, other: Store) -> list[dict[str, Any]]:
    """Return a row for each cell that is not the same in both: `key`, `what`, and the largest difference of a metric.

    The difference is `other` minus `one`. A cell is the same if all that its job gives is, bit for bit; costs (seconds,
    memory) do not count.
    """
    ours = {job.key: job for job in one.jobs()}
    theirs = {job.key: job for job in other.jobs()}
    rows = []
    for key in sorted(set(ours) | set(theirs)):
        if key not in ours or key not in theirs:
            rows.append(_row(key, f"only in {(one if key in ours else other).folder}"))
            continue
        a, b = one.result(ours[key]), other.result(theirs[key])
        if ours[key].digest != theirs[key].digest:
            rows.append(_row(key, f"other settings: {', '.join(_fields(ours[key], theirs[key]))}", _largest(a, b)))
        elif a is None or b is None:
            if a is not b:
                rows.append(_row(key, f"not finished in {(one if a is None else other).folder}"))
        elif files.canonical_json(a) != files.canonical_json(b):
            rows.append(_row(key, "other results for the same job", _largest(a, b)))
    return rows


def finished(one: Store, other: Store) -> int:
    """Return how many cells both grids have a result of: only those can be the same."""
    theirs = {job.key: job for job in other.jobs()}
    return sum(
        one.result(job) is not None and other.result(theirs[job.key]) is not None
        for job in one.jobs()
        if job.key in theirs
    )


def versions(one: Store, other: Store) -> dict[str, tuple[str, str]]:
    """Return what the finished cells of the two ran on, by name, where it is not the same."""
    ours, theirs = (ran_on(store) for store in (one, other))
    said = {name: (", ".join(ours[name]), ", ".join(theirs[name])) for name in ours}
    return {name: pair for name, pair in said.items() if pair[0] != pair[1]}


def _fields(one: Job, other: Job) -> list[str]:
    """Return the fields that are not the same in both; budgets that say nothing are left out of a plain job."""
    ours, theirs = one.plain(), other.plain()
    return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]


def _row(key: str, what: str, largest: tuple[str, float] | None = None) -> dict[str, Any]:
    metric, difference = largest or ("", 0.0)
    return {"cell": key, "what": what, "metric": metric, "difference": difference}


def _largest(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> tuple[str, float] | None:
    if a is None or b is None:
        return None
    gaps = [(name, b["metrics"][name] - value) for name, value in a["metrics"].items() if name in b["metrics"]]
    return max(gaps, key=lambda gap: abs(gap[1]), default=None)
