"""The BentoML service: `bentoml serve serving.service:LifelongService`.

Thin on purpose: each endpoint takes the live version once, translates, calls, and translates back. Limits and
error format are in `edge.py`, the swap in `slot.py`, the variables that configure it in `settings.py`.
"""

from __future__ import annotations

import os

# One thread per forward: OpenMP reads this once, when torch is loaded. Two workers on two cores answer six times as
# many requests as with the default.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import logging
from typing import Any

import bentoml

from lifelong.errors import LifelongError
from serving import openapi
from serving.admin import Admin
from serving.asking import Asking
from serving.edge import Edge
from serving.endpoints import POSTS
from serving.feedback import Feedback
from serving.pages import GETS, pages
from serving.runtime import Runtime
from serving.settings import Settings, metrics_folder
from serving.storing import Storing

for _name, _logger in logging.root.manager.loggerDict.items():
    if _name.startswith("lifelong") and isinstance(_logger, logging.Logger):
        _logger.disabled = False  # importing bentoml configures logging and mutes every logger that exists already


class Endpoints(Asking, Storing, Feedback, Admin):
    """What is asked with POST. One request takes one version once, and with it one model and one gallery view."""

    @bentoml.on_startup
    def start(self) -> None:
        """Open gallery and registry; runs in each worker before it accepts requests."""
        self.runtime.start()

    @bentoml.on_shutdown
    def stop(self) -> None:
        """Close them."""
        self.runtime.stop()

    def __is_ready__(self) -> bool:
        """Say whether a version is live (`/readyz`)."""
        return self.runtime.ready()


def named(inner: type[Endpoints]) -> dict[str, str]:
    """Return the route of each endpoint, by the name of its method."""
    return {name: api.route for name in dir(inner) if hasattr(api := getattr(inner, name), "route")}


def make(settings: Settings, *, multiprocess: str | None = None, endpoints: type[Endpoints] = Endpoints) -> Any:  # noqa: ANN401 - bentoml is untyped
    """Return a BentoML service of its own.

    Args:
        settings: Of the server.
        multiprocess: Folder through which its workers share metrics.
        endpoints: What it answers with.
    """
    runtime = Runtime(settings, multiprocess=multiprocess)
    inner = type("LifelongService", (endpoints,), {"runtime": runtime, "__doc__": __doc__})
    service = bentoml.service(
        inner,
        name="lifelong",
        workers=settings.workers,
        threads=settings.threads,
        traffic={"timeout": settings.timeout_seconds * 2 + 5},  # ours fires first, in our format
        metrics={"enabled": False},  # its labels are raw paths: they grow without bound
        logging={"access": {"enabled": False}},
        tracing={"excluded_urls": ".*"},  # off does not mean free: 134 us per request
        ssl=settings.tls(),
    )

    def document() -> dict[str, Any]:
        return openapi.complete(service.openapi_spec.asdict(), POSTS, GETS)

    routes = frozenset([*POSTS, *GETS, "/docs.json"])
    service.mount_asgi_app(pages(runtime, document), path="/", name="pages")
    answering = inner()
    methods = {route: getattr(answering, name) for name, route in named(inner).items()}
    service.add_asgi_middleware(
        Edge, direct=methods, runtime=runtime, forms={r: form for r, (form, _) in POSTS.items()}, routes=routes
    )
    return service


def _made() -> Any:  # noqa: ANN401
    """Return the service of this process; a wrong setting ends it with one line instead of BentoML's traceback."""
    try:
        return make(Settings.load(os.environ), multiprocess=metrics_folder(os.environ))
    except LifelongError as error:
        raise SystemExit(f"lifelong: {error}") from None


LifelongService = _made()
