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

import functools
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar

import bentoml
from starlette.responses import Response

from lifelong.errors import DataError, LifelongError, SpaceError
from serving import answers, decode, forms, openapi
from serving.edge import Edge
from serving.live import Floats, Live
from serving.pages import GETS, pages
from serving.problems import Problem, version_header
from serving.runtime import Runtime
from serving.settings import Settings, metrics_folder

for _name, _logger in logging.root.manager.loggerDict.items():
    if _name.startswith("lifelong") and isinstance(_logger, logging.Logger):
        _logger.disabled = False  # importing bentoml configures logging and mutes every logger that exists already

POSTS: dict[str, tuple[type[forms.Form], type[answers.Answer]]] = {
    "/v1/predict": (forms.PredictForm, answers.Predictions),
    "/v1/embed": (forms.EmbedForm, answers.Embeddings),
    "/v1/search": (forms.SearchForm, answers.Hits),
    "/v1/gallery/add": (forms.AddForm, answers.Added),
    "/v1/gallery/remove": (forms.RemoveForm, answers.Removed),
}


def endpoint(route: str) -> Callable[[Callable[[Any, Any], answers.Answer]], Any]:
    """Return a decorator: a method from form to answer becomes a typed BentoML API at `route`."""
    form, answer = POSTS[route]

    def decorated(method: Callable[[Any, Any], answers.Answer]) -> Any:  # noqa: ANN401
        @functools.wraps(method)
        def answered(self: Endpoints, form: forms.Form, /) -> Response:
            try:
                said = method(self, form)
            except LifelongError as error:
                return Problem.of(error).response(self.runtime.version(), form.request_id)
            return Response(said.model_dump_json(), 200, version_header(said.version), "application/json")

        return bentoml.api(answered, route=route, input_spec=form, output_spec=answer)

    return decorated


class Endpoints:
    """What is asked with POST. One request takes `slot.live` once, and with it one model and one gallery view."""

    runtime: ClassVar[Runtime]

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

    @endpoint("/v1/predict")
    def predict(self, form: forms.PredictForm) -> answers.Predictions:
        """Return the likeliest labels of each sample."""
        live, limits = self.runtime.slot.live, self.runtime.settings
        top = decode.integer(form.top_k, "top_k", 1, limits.max_k)
        shares, indices = live.predict(self._samples(form.x, live, "/v1/predict"), top)
        rows = zip(shares.tolist(), indices.tolist(), strict=True)
        predictions = [_prediction(live, *row) for row in rows]
        return answers.Predictions(version=live.version, request_id=form.request_id, predictions=predictions)

    @endpoint("/v1/embed")
    def embed(self, form: forms.EmbedForm) -> answers.Embeddings:
        """Return the vector of each sample, and the space it is in."""
        live = self.runtime.slot.live
        vectors = live.embed(self._samples(form.x, live, "/v1/embed")).tolist()
        return answers.Embeddings(
            version=live.version, request_id=form.request_id, space=live.space.id, vectors=vectors
        )

    @endpoint("/v1/search")
    def search(self, form: forms.SearchForm) -> answers.Hits:
        """Return the nearest stored rows of each sample or vector, whichever readable version stored them."""
        live = self.runtime.slot.live
        k = decode.integer(form.k, "k", 1, self.runtime.settings.max_k)
        where = decode.conditions(form.where)
        queries = self._queries(form, live)
        hits = live.search(queries, k, where)
        return answers.Hits(
            version=live.version,
            request_id=form.request_id,
            space=live.space.id,
            hits=[[answers.Found(**asdict(hit)) for hit in row] for row in hits],
            unreadable=live.unreadable(),
        )

    @endpoint("/v1/gallery/add")
    def add(self, form: forms.AddForm) -> answers.Added:
        """Embed samples with the live version and store them; the answer names the commit that holds them."""
        slot, most = self.runtime.slot, self.runtime.settings.max_rows
        ids = decode.identifiers(form.ids, most)
        x = self._samples(form.x, slot.live, "/v1/gallery/add")
        if len(x) != len(ids):
            raise DataError(f"need one sample per id, got {len(x)} samples and {len(ids)} ids")
        live, sequence = slot.add(ids, x, decode.payloads(form.payload, len(ids)))
        return answers.Added(
            version=live.version, request_id=form.request_id, space=live.space.id, added=len(ids), sequence=sequence
        )

    @endpoint("/v1/gallery/remove")
    def remove(self, form: forms.RemoveForm) -> answers.Removed:
        """Forget rows; ids that are not there are counted and are no error."""
        slot = self.runtime.slot
        live, ids = slot.live, decode.identifiers(form.ids, self.runtime.settings.max_rows)
        removed = slot.shelf.remove(ids)
        self.runtime.handled("/v1/gallery/remove", len(ids))
        return answers.Removed(
            version=live.version,
            request_id=form.request_id,
            removed=removed,
            missing=len(ids) - removed,
            sequence=slot.shelf.view().sequence,
        )

    def _samples(self, x: object, live: Live, route: str) -> Floats:
        rows = decode.samples(x, live.shape, self.runtime.settings.max_rows)
        self.runtime.handled(route, len(rows))
        return rows

    def _queries(self, form: forms.SearchForm, live: Live) -> Floats:
        if (form.x is None) == (form.vectors is None):
            raise DataError("a search needs either x or vectors, and not both")
        if form.x is not None:
            return live.embed(self._samples(form.x, live, "/v1/search"))
        space = decode.text(form.space, "space (which /v1/embed names, and which must come with vectors)")
        if space != live.space.id:
            raise SpaceError(
                f"the vectors are of {space!r}, version {live.version} writes {live.space.id!r}; embed again"
            )
        rows = decode.samples(form.vectors, (live.space.dim,), self.runtime.settings.max_rows, "vectors")
        self.runtime.handled("/v1/search", len(rows))
        return rows


def _prediction(live: Live, shares: list[float], indices: list[int]) -> answers.Prediction:
    top = [answers.Guess(label=live.labels[i], probability=p) for p, i in zip(shares, indices, strict=True)]
    return answers.Prediction(label=top[0].label, probability=top[0].probability, top=top)


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
    )

    def document() -> dict[str, Any]:
        return openapi.complete(service.openapi_spec.asdict(), POSTS, GETS)

    routes = frozenset([*POSTS, *GETS, "/docs.json"])
    service.mount_asgi_app(pages(runtime, document), path="/", name="pages")
    service.add_asgi_middleware(Edge, runtime=runtime, forms={r: form for r, (form, _) in POSTS.items()}, routes=routes)
    return service


def _settings() -> Settings:
    """Return the settings of this process; a wrong one ends it with one line instead of BentoML's traceback."""
    try:
        return Settings.load(os.environ)
    except LifelongError as error:
        raise SystemExit(f"lifelong: {error}") from None


LifelongService = make(_settings(), multiprocess=metrics_folder(os.environ))
