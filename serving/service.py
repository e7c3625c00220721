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
from collections.abc import Callable
from functools import partial
from typing import Any, final

import bentoml
from starlette.responses import Response

from lifelong.errors import LifelongError
from serving import openapi
from serving.admin import Admin
from serving.asking import Asking
from serving.edge import App, Edge
from serving.endpoints import POSTS
from serving.feedback import Feedback
from serving.forms import Form
from serving.pages import GETS, pages
from serving.runtime import Runtime
from serving.settings import Settings, metrics_folder
from serving.storing import Storing

for _name, _logger in logging.root.manager.loggerDict.items():
    if _name.startswith("lifelong") and isinstance(_logger, logging.Logger):
        _logger.disabled = False  # importing bentoml configures logging and mutes every logger that exists already
logging.getLogger("uvicorn.access").propagate = False  # or it makes a line of each request, for nobody


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


def methods(inner: type[Endpoints]) -> dict[str, Callable[[Form], Response]]:
    """Return what answers each route: the methods themselves, without BentoML's way there."""
    answering, apis = inner(), [getattr(inner, name) for name in dir(inner)]
    return {api.route: partial(api.func, answering) for api in apis if hasattr(api, "route")}


@final
class Edged(bentoml.Service):  # type: ignore[misc]  # bentoml is untyped
    """A service whose outermost layer is ours: what it answers itself passes none of BentoML's."""

    edge: Callable[[App], App]

    def to_asgi(self, is_main: bool = True) -> App:
        """Return the application that a worker serves."""
        return self.edge(super().to_asgi(is_main))


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
        service_class=Edged,
    )

    def document() -> dict[str, Any]:
        return openapi.complete(service.openapi_spec.asdict(), POSTS, GETS)

    routes = frozenset([*POSTS, *GETS, "/docs.json"])
    service.mount_asgi_app(pages(runtime, document), path="/", name="pages")
    forms = {route: form for route, (form, _) in POSTS.items()}
    service.edge = partial(Edge, direct=methods(inner), runtime=runtime, forms=forms, routes=routes)
    return service


def _made() -> Any:  # noqa: ANN401
    """Return the service of this process; a wrong setting ends it with one line instead of BentoML's traceback."""
    try:
        return make(Settings.load(os.environ), multiprocess=metrics_folder(os.environ))
    except LifelongError as error:
        raise SystemExit(f"lifelong: {error}") from None


LifelongService = _made()
