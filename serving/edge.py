"""The edge: what every request passes first and every answer last, as one pure ASGI middleware.

```
in flight (429) -> token (401, 403) -> rate (429) -> body size (413) and pace (408) -> content type (415)
    -> form (400) -> BentoML -> in time (504)
```
It gives each request an id, writes the version into each answer's head, counts, and turns whatever error the
layers below produce into the one format of `problems.py`. BentoML itself has no body limit, logs a traceback
per bad request and answers errors in several shapes; here it never sees a bad request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol, final

from starlette.responses import Response

from lifelong.errors import LifelongError
from serving import bodies
from serving.auth import ADMIN, Keys
from serving.exchange import CALM, Exchange
from serving.forms import Form
from serving.limits import Rates
from serving.logs import REQUEST
from serving.pace import Pace
from serving.problems import MEDIA_TYPE, Problem, version_header
from serving.settings import Settings

log = logging.getLogger("lifelong.serving")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Process(Protocol):
    """What the edge needs to know of the process around it."""

    settings: Settings
    keys: Keys

    def version(self) -> int | None:
        """Return the live version, if there is one."""

    def why_not(self) -> str:
        """Return why it is not ready."""

    def draining(self) -> bool:
        """Return whether it is about to end."""

    def began(self) -> None:
        """A request is being worked on."""

    def ended(self, exchange: Exchange, seconds: float) -> None:
        """The request was answered."""

    def audited(self, exchange: Exchange) -> None:
        """An admin call was answered."""


@final
class Edge:
    """See the module.

    Args:
        app: The next ASGI application.
        runtime: Limits, live version, counters.
        forms: Which form the body of a POST to a path is.
        direct: What answers the form of a path without going through `app`.
        routes: All paths that are served; others are counted together, so that a scan costs no memory.
    """

    def __init__(
        self,
        app: App,
        runtime: Process,
        forms: Mapping[str, type[Form]],
        routes: frozenset[str],
        direct: Mapping[str, Callable[[Form], Response]],
    ) -> None:
        self.app, self.runtime, self.forms, self.routes, self.direct = app, runtime, forms, routes, direct
        self._threads = ThreadPoolExecutor(runtime.settings.threads, "lifelong-answer")
        self.busy, self.pace = 0, Pace()
        self.rates = Rates(runtime.settings.rate_per_second, runtime.settings.rate_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        exchange = Exchange.of(scope, self.routes)
        scope["lifelong"] = exchange
        REQUEST.set(exchange.request_id)
        reply = Reply(exchange, send, self.runtime)
        self.busy += path not in CALM
        self.runtime.began()
        try:
            await self._answer(scope, receive, reply)
        except Problem as problem:
            await reply.refuse(problem)
        except LifelongError as error:
            await reply.refuse(Problem.of(error))
        except Exception:
            await reply.refuse(Problem(500))
            raise  # a bug: the server logs its traceback
        finally:
            self.busy -= path not in CALM
            exchange.status = exchange.status or 499
            self.runtime.ended(exchange, time.perf_counter() - exchange.started)
            if path.startswith(ADMIN):
                self.runtime.audited(exchange)

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        if self.busy > self.runtime.settings.max_concurrency and scope["path"] not in CALM:
            raise Problem(429)
        self.runtime.keys.admit(scope, reply.exchange)
        if scope["path"][-1:] == "/" and scope["path"].rstrip("/") in self.routes:
            raise Problem(404)  # Starlette would redirect the client to wherever its host header says
        if scope["path"] not in CALM:
            self.rates.take(reply.exchange.who or reply.exchange.client)
        limits = self.runtime.settings
        body = await bodies.body(reply.exchange, receive, limits.max_body_bytes, limits.timeout_seconds)
        if body is None:
            return  # the client went away
        if scope["method"] == "POST" and (kind := self.forms.get(scope["path"])):
            reply.exchange.form = bodies.form(kind, scope, body, reply.exchange)
            if scope["path"] in self.direct:
                await self._directly(self.direct[scope["path"]], reply, len(body))
                return
        work = asyncio.ensure_future(self.app(scope, bodies.replay(body, receive), reply))
        try:
            done, _ = await asyncio.wait({work}, timeout=self.runtime.settings.timeout_seconds)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if not done and reply.state == "open":
            work.cancel()  # a thread cannot be stopped: it ends by itself and its answer is dropped
            raise Problem(504)
        await work

    async def _directly(self, answer: Callable[[Form], Response], reply: Reply, size: int) -> None:
        """Answer here: the form is read already, and BentoML's way there costs more than the model."""
        route, form = reply.exchange.route, reply.exchange.form

        def timed() -> Response:
            return self.pace.timed(route, size, lambda: answer(form))

        try:
            said = timed() if self.pace.quick(route, size, form) else await self._in_a_thread(timed)
        except Problem:
            raise
        except Exception as error:
            log.exception("a bug in the answer to request_id=%s", reply.exchange.request_id)
            raise Problem(500) from error
        await reply.answer(said)

    async def _in_a_thread(self, answer: Callable[[], Response]) -> Response:
        context, loop = copy_context(), asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, context.run, answer)
        done, _ = await asyncio.wait({work}, timeout=self.runtime.settings.timeout_seconds)
        if not done:
            work.cancel()  # a thread cannot be stopped: it ends by itself and its answer is dropped
            raise Problem(504)
        return work.result()


@final
class Reply:
    """An ASGI `send` that completes the head of an answer and replaces foreign error bodies.

    Args:
        exchange: The request that is answered.
        send: The server's own `send`.
        runtime: Names the live version.
    """

    def __init__(self, exchange: Exchange, send: Send, runtime: Process) -> None:
        self.exchange, self.state = exchange, "open"  # -> passing | replacing -> closed
        self._send, self._runtime = send, runtime
        self._foreign: Message = {}

    async def __call__(self, message: Message) -> None:
        """Pass one message on, or keep it back."""
        if self.state == "passing":
            await self._send(message)
        elif self.state == "open" and message["type"] == "http.response.start":
            if _foreign_error(message):
                self.state, self._foreign = "replacing", message
            else:
                self.state = "passing"
                head = list(message["headers"])
                if not any(name.lower() == b"x-model-version" for name, _ in head):
                    head += _encoded(version_header(self._runtime.version()))
                await self._start(message["status"], head)
        elif self.state == "replacing" and not message.get("more_body", False):
            status = self._foreign["status"]
            detail = self._runtime.why_not() if status == 503 else ""
            await self.refuse(Problem(status, detail), _allowed(self._foreign))

    async def answer(self, said: Response) -> None:
        """Answer with what was said here."""
        self.state = "closed"
        await self._start(said.status_code, said.raw_headers)
        await self._send({"type": "http.response.body", "body": said.body})

    async def refuse(self, problem: Problem, head: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Answer with `problem`, unless an answer is on its way; what the layers below send later is dropped."""
        if self.state not in ("open", "replacing"):
            return
        self.state = "closed"
        version = self._runtime.version()
        body = problem.body(version, self.exchange.request_id)
        own = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            **version_header(version),
            **problem.head(),
        }
        await self._start(problem.status, [*_encoded(own), *head])
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, head: list[tuple[bytes, bytes]]) -> None:
        self.exchange.status = status
        head.append((b"x-request-id", self.exchange.request_id.encode()))
        if self._runtime.draining() and (b"connection", b"close") not in head:
            head.append((b"connection", b"close"))  # the client's next connection goes elsewhere
        await self._send({"type": "http.response.start", "status": status, "headers": head})


def _foreign_error(message: Message) -> bool:
    types = [value for name, value in message["headers"] if name.lower() == b"content-type"]
    return message["status"] >= 400 and MEDIA_TYPE.encode() not in types


def _encoded(head: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in head.items()]


def _allowed(message: Message) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in message["headers"] if name.lower() == b"allow"]
