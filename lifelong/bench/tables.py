"""A finished grid as rows: one for each cell, and one for each strategy on each scenario."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from lifelong.bench.job import Job, revision
from lifelong.bench.spread import holm, paired, spread
from lifelong.bench.store import Store

LEADING = ("acc_final", "prequential")  # what strategies are ranked and tested by
SHOWN = ("acc_final", "acc_avg_incremental", "bwt_gem", "prequential", "majority", "no_change")  # to people


def cells(store: Store) -> list[dict[str, Any]]:
    """Return one row for each job: what it is, how it ended, its metrics and what it cost."""
    rows = []
    for job in store.jobs():
        result, failure = store.result(job), store.failure(job)
        row: dict[str, Any] = {
            "scenario": job.scenario, "strategy": job.strategy, "seed": job.seed, "protocol": job.protocol,
            "status": "finished" if result else failure["kind"] if failure else "missing",
            "reason": failure["reason"] if failure and not result else "", "lr": job.lr,
            "settings": " ".join(job.settings), "digest": job.digest,
        }  # fmt: skip
        if result:
            row |= {**result["metrics"], **_work(result)}
            row |= {key: result[key] for key in ("calibration_error", "log_loss") if key in result}
        rows.append(row)
    return rows


def _work(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "flops": result["flops"],
        "rehearsed": result["counters"]["rehearsed"],
        "state_bytes": sum(result["bytes"].values()),
        "budget_spent": result["budget_spent"],
    }


def standings(store: Store) -> list[dict[str, Any]]:
    """Return one row for each strategy on each scenario, the best first: spreads of its metrics, and how it compares.

    `p` is that of a paired t-test of the leading metric against the best strategy of the scenario, corrected for all
    pairs of strategies (Holm), since the best is known from the same runs; `failed`, `excluded` and `missing` (not run
    yet) say how many seeds gave nothing, `reason` the first reason.
    """
    rows: list[dict[str, Any]] = []
    jobs = store.jobs()
    for scenario in dict.fromkeys(job.scenario for job in jobs):
        rows += _ranked([job for job in jobs if job.scenario == scenario], store)
    return rows


def ran_on(store: Store) -> dict[str, list[str]]:
    """Return by name the versions that the finished cells ran on."""
    costs = [store.cost(job) for job in store.jobs() if store.result(job)]
    names = ("lifelong", "python", "torch", "numpy", "machine")
    return {name: sorted({str(cost[name]) for cost in costs if name in cost} or {"unknown"}) for name in names}


def _ranked(jobs: Sequence[Job], store: Store) -> list[dict[str, Any]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(f"{job.strategy} {job.label}".strip(), []).append(job)  # a trial stands for itself
    rows = [_row(group, store) for group in groups.values()]
    finished = [row for row in rows if row["seeds"]]
    finished.sort(key=lambda row: -row["metrics"][row["leading"]].mean)
    pairs = holm([paired(other["values"], one["values"]) for one, other in combinations(finished, 2)])
    for row, p in zip(finished[1:], pairs, strict=False):  # those with the best come first
        row["p"] = p
    return finished + [row for row in rows if not row["seeds"]]


def _row(group: Sequence[Job], store: Store) -> dict[str, Any]:
    found = [(job, result) for job in group if (result := store.result(job))]
    failures = [failure for job in group if not store.result(job) and (failure := store.failure(job))]
    costs = [store.cost(job) for job, _ in found]
    first = group[0]
    name = f"{first.strategy} {first.label}".strip()
    protocol = "trials of a search" if first.label else first.protocol
    row: dict[str, Any] = {
        "scenario": first.scenario, "strategy": name, "protocol": protocol,
        "seeds": len(found),
        "failed": sum(f["kind"] == "failed" for f in failures),
        "excluded": sum(f["kind"] == "excluded" for f in failures),
        "missing": len(group) - len(found) - len(failures),
        "reason": failures[0]["reason"] if failures else "", "lr": first.lr, "settings": " ".join(first.settings),
        "tuned": dict(first.tuned), "metrics": {}, "values": {}, "leading": "", "p": math.nan, "note": "",
    }  # fmt: skip
    if found:
        results = [result for _, result in found]
        names = [name for name in results[0]["metrics"] if all(name in r["metrics"] for r in results)]
        row["leading"] = next(name for name in LEADING if name in names)
        row["values"] = {job.seed: result["metrics"][row["leading"]] for job, result in found}
        row["metrics"] = {name: spread([r["metrics"][name] for r in results]) for name in names}
        row["flops"] = spread([r["flops"] for r in results])
        row["rehearsed"] = spread([float(r["counters"]["rehearsed"]) for r in results])
        row["state_bytes"] = spread([float(sum(r["bytes"].values())) for r in results])
        row["seconds"] = spread([c["cpu_seconds"] for c in costs if "cpu_seconds" in c] or [math.nan])
        row["matrix"] = _mean_matrix(results)
        row["curve"], row["note"] = _mean_curve(results), "; ".join(_notes(found))
    return row


def _notes(found: Sequence[tuple[Job, Mapping[str, Any]]]) -> Iterator[str]:
    """Yield what a reader has to know of a row: of the strategy, its data, its budget."""
    results = [result for _, result in found]
    yield from dict.fromkeys(result["note"] for result in results if result.get("note"))
    for measured in dict.fromkeys(result["signature"]["name"] for result in results):
        if measured.removesuffix("-validation") == f"{found[0][0].scenario}-small":
            yield f"measured on {measured}, which stood in where data were missing"
    if len(shas := {str(result["signature"]["data"].get("sha256"))[:12] for result in results}) > 1:
        yield f"a mean over different data ({', '.join(sorted(shas))}); run it anew in a folder of its own"
    if old := sum(result.get("revision") != revision(job) for job, result in found):
        yield f"{old} of its cells are an older version's; the same lifelong bench run runs them anew"
    if spent := [result for result in results if result["budget_spent"]]:
        ways = ", ".join(sorted({r.get("stopped_by", "flops") for r in spent}))
        samples = [r["counters"]["samples"] for r in spent]
        learned = " to ".join(f"{n:,}" for n in dict.fromkeys((min(samples), max(samples))))
        yield f"budget used up ({ways}) in {len(spent)} of {len(found)} runs, after {learned} samples"


def _mean_curve(results: Sequence[Mapping[str, Any]]) -> list[list[float]] | None:
    """Return the points of a stream without boundaries, samples and share of right answers: means over seeds."""
    if not all("online" in r for r in results):
        return None
    points = zip(*(r["online"]["curve"] for r in results), strict=False)
    return [[same[0][0], sum(point[1] for point in same) / len(same)] for same in points]


def _mean_matrix(results: Sequence[Mapping[str, Any]]) -> list[list[float]] | None:
    if not all("matrix" in r for r in results):
        return None
    size = range(len(results[0]["matrix"]))
    return [[sum(r["matrix"][i][j] for r in results) / len(results) for j in size] for i in size]
