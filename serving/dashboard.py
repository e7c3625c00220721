"""The dashboard: one static page at `/ui`, and its numbers as server-sent events at `/ui/events`.

The page holds no data and needs no token; the events need one of the scope read, and its buttons one of the scope
admin. It may run nothing but its own script (a content security policy with the hashes of what is in it).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from lifelong.errors import ArtifactError, LifelongError, NotFound
from lifelong.release.registry import Registry
from serving.problems import Problem
from serving.runtime import Runtime

PAGE = Path(__file__).parent / "assets" / "ui.html"
PERIOD, ROUNDS = 2.0, 8  # seconds between two events, and events of one stream: the page then asks again
STREAMS = 16  # at once, per worker
NEWEST = 12  # versions and events that are shown
Parts = Mapping[str, Callable[[str], Any]]


class Dashboard:
    """The two routes.

    Args:
        runtime: Of the worker.
        parts: What is shown, by name: makers of answers that take a request id.
    """

    def __init__(self, runtime: Runtime, parts: Parts) -> None:
        self.runtime, self.parts, self._open = runtime, parts, 0
        text = PAGE.read_text()
        self._page, self._policy = text, policy(text)

    def page(self, request: Request) -> Response:
        """Return the page."""
        head = {
            "content-security-policy": self._policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }
        return HTMLResponse(self._page, headers=head)

    async def events(self, request: Request) -> Response:
        """Return a stream of states; it ends after a while, so that a server that stops need not wait for it."""
        if self._open >= STREAMS:
            told = Problem(429, f"{STREAMS} dashboards are open already; close one", retry=5)
            return told.response(self.runtime.version(), request.scope["lifelong"].request_id)
        return StreamingResponse(self._states(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _states(self) -> AsyncIterator[str]:
        self._open += 1
        try:
            for _ in range(ROUNDS):
                if self.runtime.draining():
                    break
                yield f"data: {json.dumps(await run_in_threadpool(self.state))}\n\n"
                await asyncio.sleep(PERIOD)
        finally:
            self._open -= 1

    def state(self) -> dict[str, Any]:
        """Return everything that is shown."""
        told: dict[str, Any] = {"version": self.runtime.version(), "ready": self.runtime.ready()}
        for name, make in self.parts.items():
            try:
                told[name] = make("").model_dump()
            except LifelongError as error:
                told[name] = {"problem": str(error)}
        samples = self.runtime.telemetry.samples()
        told |= {"traffic": traffic(samples), "answers": answers(samples)}
        try:
            registry = self.runtime.registry()
            told["events"] = [event(each) for each in registry.history(NEWEST)[::-1]]
            told["compatibility"] = compatibility(registry)
        except LifelongError:  # no registry yet, or an event of it is damaged
            told |= {"events": [], "compatibility": []}
        return told


def event(each: Any) -> dict[str, Any]:  # noqa: ANN401 - an Event
    """Return one event as plain values; of its report only the gates that refused."""
    plain = {name: value for name, value in vars(each).items() if name != "report"}
    return {**plain, "gates": each.report.gates if each.report and not each.report.passed else []}


def compatibility(registry: Registry) -> list[dict[str, Any]]:
    """Return, for each of the newest versions, what was measured when it was let in: its queries in older galleries.

    Each row: `version`, `space`, and `reads`: by space, `cross` (its queries there) and `self` (that version's own).
    """
    rows = []
    for version in registry.versions()[-NEWEST:]:
        try:
            manifest = registry.manifest(version)
        except (ArtifactError, NotFound):
            continue
        reads = {
            proof["space"]: {name: proof[name] for name in ("cross", "self", "measure")} for proof in manifest["proofs"]
        }
        rows.append({"version": version, "space": manifest["space"]["id"], "reads": reads})
    return rows


def traffic(samples: list[tuple[str, dict[str, str], float]]) -> list[dict[str, Any]]:
    """Return requests, errors, mean and 99th percentile in seconds of each route since the start, busiest first."""
    found: dict[str, dict[str, Any]] = {}
    for name, labels, value in samples:
        row = found.setdefault(labels.get("route", ""), {"requests": 0, "errors": 0, "seconds": 0.0, "buckets": []})
        if name == "lifelong_requests_total":
            row["requests"] += int(value)
            row["errors"] += int(value) if labels["code"].startswith("5") else 0
        elif name == "lifelong_request_seconds_sum":
            row["seconds"] += value
        elif name == "lifelong_request_seconds_bucket":
            row["buckets"].append((float(labels["le"]), value))
    rows = [
        {
            "route": route,
            "requests": row["requests"],
            "errors": row["errors"],
            "mean": row["seconds"] / row["requests"],
            "p99": quantile(row["buckets"], 0.99),
        }
        for route, row in found.items()
        if route and row["requests"]
    ]
    return sorted(rows, key=lambda row: -row["requests"])


def answers(samples: list[tuple[str, dict[str, str], float]]) -> list[dict[str, Any]]:
    """Return answers, mean and 99th percentile in seconds of each version that answers or is compared, newest first."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for name, labels, value in samples:
        if name.startswith("lifelong_version_seconds"):
            row = found.setdefault((labels["kind"], int(labels["version"])), {})
            part = labels.get("le") or name.rpartition("_")[2]
            row[part] = row.get(part, 0.0) + value  # over the workers
    rows = []
    for (kind, version), row in found.items():
        count, seconds = row.pop("count"), row.pop("sum")
        p99 = quantile([(float(bound), value) for bound, value in row.items()], 0.99)
        rows.append(
            {"kind": kind, "version": version, "answers": int(count), "mean": seconds / (count or 1), "p99": p99}
        )
    return sorted(rows, key=lambda row: (-int(row["version"] or 0), row["kind"]))


def quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """Return the bound of the bucket in which `share` of the values lie; None if it is the open one.

    >>> quantile([(0.1, 98.0), (0.5, 99.0), (float("inf"), 100.0)], 0.99)
    0.5
    """
    for bound, count in sorted(buckets):
        if count >= share * max(total for _, total in buckets):
            return None if bound == float("inf") else bound
    return None


def policy(page: str) -> str:
    """Return the content security policy that lets a page run and wear only what is written in it."""

    def hashes(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.S)
        digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
