"""From a method that takes a form and returns an answer to a typed BentoML endpoint, and what all of them share."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ClassVar, final

import bentoml
from pydantic_core import to_json
from starlette.responses import Response

from lifelong.errors import UNWRITABLE, LifelongError, Unavailable
from serving import answers, decode, forms
from serving.exchange import SEQUENCE
from serving.live import Floats, Live
from serving.problems import Problem, version_header
from serving.runtime import Runtime

Answer = answers.Status | dict[str, Any]
log = logging.getLogger("lifelong.serving")
POSTS: dict[str, tuple[type[forms.Form], type[answers.Status]]] = {
    "/v1/predict": (forms.PredictForm, answers.Predictions),
    "/v1/embed": (forms.EmbedForm, answers.Embeddings),
    "/v1/search": (forms.SearchForm, answers.Hits),
    "/v1/gallery/add": (forms.AddForm, answers.Added),
    "/v1/gallery/get": (forms.GetForm, answers.Rows),
    "/v1/gallery/remove": (forms.RemoveForm, answers.Removed),
    "/v1/feedback": (forms.FeedbackForm, answers.Labelled),
    "/v1/admin/promote": (forms.PromoteForm, answers.Moved),
    "/v1/admin/rollback": (forms.RollbackForm, answers.Moved),
    "/v1/admin/canary": (forms.CanaryForm, answers.RolloutState),
    "/v1/admin/shadow": (forms.ShadowForm, answers.RolloutState),
}


def endpoint(route: str) -> Callable[[Callable[[Any, Any], Answer]], Any]:
    """Return a decorator: a method from form to answer (or its fields) becomes a typed BentoML API at `route`."""
    form, answer = POSTS[route]

    def decorated(method: Callable[[Any, Any], Answer]) -> Any:  # noqa: ANN401
        @functools.wraps(method)
        def answered(self: Routes, form: forms.Form, /) -> Response:
            try:
                said = method(self, form)
            except LifelongError as error:
                return Problem.of(error).response(self.runtime.version(), form.request_id)
            except OSError as error:
                if error.errno not in UNWRITABLE:
                    raise
                log.error("%s cannot be done: %s", route, error)
                told = Unavailable(f"the disk refuses it: {error.strerror}; make room, then send it again")
                return Problem.of(told).response(self.runtime.version(), form.request_id)
            return Said(said)

        return bentoml.api(answered, route=route, input_spec=form, output_spec=answer)

    return decorated


@final
class Said(Response):
    """An answer with its head; Starlette would take longer to put it together."""

    def __init__(self, said: Answer) -> None:
        self.status_code, self.background = 200, None
        # Fields are written as they are: to check our own answer takes four times as long as to write it.
        self.body = to_json(said) if isinstance(said, dict) else said.model_dump_json().encode()
        version = said["version"] if isinstance(said, dict) else said.version
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        self.raw_headers += [(name.encode(), value.encode()) for name, value in version_header(version).items()]
        if isinstance(said, answers.Written):
            self.raw_headers.append((SEQUENCE.encode(), str(said.sequence).encode()))


class Routes:
    """What endpoints share: the worker they run in."""

    runtime: ClassVar[Runtime]

    def samples(self, x: object, live: Live, route: str) -> Floats:
        """Return samples `[N, ...]` in the shape of a version, counted."""
        rows = decode.samples(x, live.shape, self.runtime.settings.max_rows)
        self.runtime.handled(route, len(rows))
        return rows
