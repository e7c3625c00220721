"""A finished grid as rows: one for each cell, and one for each strategy on each scenario."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lifelong.bench.job import Job
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

    `p` is that of a paired t-test of the leading metric against the best strategy of the scenario, corrected for the
    number of strategies (Holm); `failed`, `excluded` and `missing` (not run yet) say how many seeds gave nothing,
    `reason` the first reason.
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
        groups.setdefault(job.strategy, []).append(job)
    rows = [_row(group, store) for group in groups.values()]
    finished = [row for row in rows if row["seeds"]]
    finished.sort(key=lambda row: -row["metrics"][row["leading"]].mean)
    if finished:
        best = finished[0]["values"]
        for row, p in zip(finished[1:], holm([paired(row["values"], best) for row in finished[1:]]), strict=True):
            row["p"] = p
    return finished + [row for row in rows if not row["seeds"]]


def _row(group: Sequence[Job], store: Store) -> dict[str, Any]:
    found = [(job, result) for job in group if (result := store.result(job))]
    failures = [failure for job in group if not store.result(job) and (failure := store.failure(job))]
    costs = [store.cost(job) for job, _ in found]
    first = group[0]
    row: dict[str, Any] = {
        "scenario": first.scenario, "strategy": first.strategy, "protocol": first.protocol, "seeds": len(found),
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
        row["seconds"] = spread([c.get("cpu_seconds", math.nan) for c in costs])
        row["matrix"] = _mean_matrix(results)
        row["online"], row["note"] = results[0].get("online"), _note(first, results[0])
    return row


def _note(job: Job, result: Mapping[str, Any]) -> str:
    """Return what a reader has to know of a row: of the strategy, and where other data stood in."""
    measured = result["signature"]["name"]
    other = "" if measured == job.scenario else f"measured on {measured}, which stood in where data were missing"
    return "; ".join(part for part in (result.get("note", ""), other) if part)


def _mean_matrix(results: Sequence[Mapping[str, Any]]) -> list[list[float]] | None:
    if not all("matrix" in r for r in results):
        return None
    size = range(len(results[0]["matrix"]))
    return [[sum(r["matrix"][i][j] for r in results) / len(results) for j in size] for i in size]
