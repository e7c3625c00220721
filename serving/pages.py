"""What is asked with GET: versions, gallery, metrics, and the OpenAPI document; a Starlette app that BentoML mounts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lifelong.errors import ArtifactError, LifelongError, NotFound
from lifelong.release.registry import Event, Registry
from serving.admin import rollout_state
from serving.answers import (
    Accuracies,
    Accuracy,
    GalleryState,
    Labels,
    Published,
    Refusal,
    Refused,
    RolloutState,
    Status,
    Swapped,
    Versions,
)
from serving.dashboard import Dashboard
from serving.live import unreadable
from serving.openapi import fitting
from serving.problems import Problem, version_header
from serving.runtime import Runtime
from serving.states import EVENTS, States

NEWEST, REFUSED = 50, 12  # versions and refused candidates that /v1/versions lists
GETS: dict[str, tuple[type[BaseModel] | None, str]] = {
    "/v1/versions": (Versions, f"What became of each version (of the newest {NEWEST}), with reports; the last swaps."),
    "/v1/rollout": (RolloutState, "Canary, shadow, what was seen of them, and the workers of this server."),
    "/v1/accuracy": (Accuracies, "What feedback says of each version, in all and by true label."),
    "/v1/labels": (Labels, "The labels that a version knows, in its order."),
    "/v1/gallery": (GalleryState, "What the gallery holds, and what of it the live version reads."),
    "/ui": (None, "The dashboard: one static page."),
    "/ui/events": (None, "What the dashboard shows, as server-sent events, every two seconds for a while."),
    "/metrics": (None, "Metrics in the Prometheus text format."),
    "/livez": (None, "200 while the process answers."),
    "/readyz": (None, "200 while a version is live and the server is not about to stop, else 503."),
}


def pages(runtime: Runtime, document: Callable[[], dict[str, Any]]) -> Starlette:
    """Return the app.

    Args:
        runtime: Of the worker.
        document: Makes the OpenAPI document.
    """

    def openapi(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse(fitting(document(), runtime.slot.live.shape) if runtime.version() else document())

    def metrics(request: Request) -> Response:  # noqa: ARG001
        return Response(runtime.telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)

    def gallery(request: Request) -> Response:
        exchange = request.scope["lifelong"]
        runtime.slot.shelf.reach(exchange.change)
        return _answer(gallery_state(runtime, exchange.request_id))

    def versions(request: Request) -> Response:
        return _answer(all_versions(runtime, request.scope["lifelong"].request_id))

    def rollout(request: Request) -> Response:
        return _answer(rollout_state(runtime, request.scope["lifelong"].request_id))

    def accuracy(request: Request) -> Response:
        return _answer(accuracies(runtime, request.scope["lifelong"].request_id))

    def labels(request: Request) -> Response:
        exchange = request.scope["lifelong"]
        live = runtime.router.pick(exchange)
        return _answer(Labels(version=live.version, request_id=exchange.request_id, labels=list(live.labels)))

    handlers = {
        "/v1/labels": labels,
        "/v1/accuracy": accuracy,
        "/docs.json": openapi,
        "/v1/rollout": rollout,
        "/metrics": metrics,
        "/v1/gallery": gallery,
        "/v1/versions": versions,
    }
    parts = {"versions": all_versions, "rollout": rollout_state, "gallery": gallery_state, "accuracy": accuracies}
    shown = Dashboard(runtime, {name: partial(make, runtime) for name, make in parts.items()})
    routes = [Route(path, _threaded(runtime, handler)) for path, handler in handlers.items()]
    return Starlette(routes=[*routes, Route("/ui", shown.page), Route("/ui/events", shown.events)])


def gallery_state(runtime: Runtime, request_id: str) -> GalleryState:
    """Return what the gallery holds."""
    slot = runtime.slot
    live, stats = (slot.live if slot.version else None), slot.shelf.view().stats()
    return GalleryState(
        version=live.version if live else None,
        request_id=request_id,
        rows=stats.rows,
        by_space=stats.by_space,
        unreadable=unreadable(live, stats.by_space) if live else 0,
        sequence=stats.sequence,
        bytes=stats.bytes,
    )


def accuracies(runtime: Runtime, request_id: str) -> Accuracies:
    """Return what feedback says of each version."""
    found = sorted(runtime.remembered.tallies().items(), reverse=True)
    return Accuracies(
        version=runtime.version(),
        request_id=request_id,
        versions=[
            Accuracy(
                version=version,
                correct=sum(correct for correct, _ in labels.values()),
                total=sum(total for _, total in labels.values()),
                by_label={str(label): pair for label, pair in labels.items()},
            )
            for version, labels in found[:NEWEST]
        ],
        remembered=len(runtime.remembered),
        backlog=runtime.stream.backlog(),
    )


def all_versions(runtime: Runtime, request_id: str) -> Versions:
    """Return what is live, what was, what was refused, and the newest versions of the registry."""
    slot = runtime.slot
    live = slot.live if slot.version else None
    registry: Registry | None
    try:
        registry = runtime.registry()
    except NotFound:
        registry = None
    numbers = registry.versions()[::-1] if registry else []
    events: list[Event] = []
    if registry:
        with suppress(ArtifactError):  # a damaged event hides no version
            events = registry.history(EVENTS)
    states = States(slot, runtime.crew.read(), events)
    return Versions(
        version=live.version if live else None,
        request_id=request_id,
        space=live.space.id if live else None,
        level=live.level if live else None,
        labels=len(live.labels) if live else 0,
        unreadable=unreadable(live, slot.shelf.view().stats().by_space) if live else 0,
        health=dict(live.health) if live else {},
        retired=slot.retired,
        rejected=[
            Refusal(version=r.version, sha256=r.sha256, gate=r.gate, reason=r.reason[:1000]) for r in slot.rejected
        ],
        refused=[_refused(event) for event in events[::-1] if event.kind == "refuse"][:REFUSED],
        swaps=[Swapped(**vars(swap)) for swap in slot.swaps],
        pointer=slot.pointer.version if slot.pointer else None,
        total=len(numbers),
        versions=[_published(registry, n, states) for n in numbers[:NEWEST]] if registry else [],
    )


def _published(registry: Registry, version: int, states: States) -> Published:
    level, report = None, _report(registry, version)
    with suppress(ArtifactError, NotFound):  # its report says what is wrong
        level = registry.manifest(version)["level"]
    state = states.of(version, report)
    return Published(
        version=version, state=state.name, gate=state.gate, reason=state.reason[:1000], level=level, report=report
    )


def _refused(event: Event) -> Refused:
    gates = event.report.gates if event.report else []
    return Refused(time=event.time, who=event.who, gates=gates, reason=event.why[:1000])


def _report(registry: Registry, version: int) -> dict[str, Any] | None:
    try:
        report = registry.report(version)
    except (ArtifactError, NotFound) as error:
        return {"passed": False, "unreadable": str(error)}
    return report.as_dict() if report else None


def _answer(model: Status) -> Response:
    return Response(model.model_dump_json(), media_type="application/json", headers=version_header(model.version))


def _threaded(runtime: Runtime, handler: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Run a handler beside the event loop; its errors become problems here (a mounted app would answer 500)."""

    async def handled(request: Request) -> Response:
        try:
            return await run_in_threadpool(handler, request)
        except LifelongError as error:
            request_id = request.scope["lifelong"].request_id
            return Problem.of(error).response(runtime.version(), request_id)

    return handled
