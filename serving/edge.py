"""The edge: what every request passes first and every answer last, as one pure ASGI middleware.

```
in flight (429) -> body size (413) and pace (408) -> content type (415) -> form (400) -> BentoML -> in time (504)
```
It gives each request an id, writes the version into each answer's head, counts, and turns whatever error the
layers below produce into the one format of `problems.py`. BentoML itself has no body limit, logs a traceback
per bad request and answers errors in several shapes; here it never sees a bad request.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from lifelong.errors import LifelongError, TooLarge
from serving.forms import Form
from serving.problems import MEDIA_TYPE, Problem, version_header
from serving.settings import Settings

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UNMATCHED = "unmatched"
PATIENCE = 4  # times the largest body are read, and thrown away, so that the client hears why
CALM = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})  # answered even when everything else is refused
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Process(Protocol):
    """What the edge needs to know of the process around it."""

    settings: Settings

    def version(self) -> int | None:
        """Return the live version, if there is one."""

    def why_not(self) -> str:
        """Return why nothing is live."""

    def began(self) -> None:
        """A request is being worked on."""

    def ended(self, route: str, code: int, seconds: float) -> None:
        """The request was answered."""


@dataclass
class Exchange:
    """One request and its answer."""

    request_id: str
    route: str
    form: Form | None = None
    status: int = 0
    started: float = field(default_factory=time.perf_counter)


@final
class Edge:
    """See the module.

    Args:
        app: The next ASGI application.
        runtime: Limits, live version, counters.
        forms: Which form the body of a POST to a path is.
        routes: All paths that are served; others are counted together, so that a scan costs no memory.
    """

    def __init__(self, app: App, runtime: Process, forms: Mapping[str, type[Form]], routes: frozenset[str]) -> None:
        self.app, self.runtime, self.forms, self.routes = app, runtime, forms, routes
        self.busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        exchange = Exchange(_request_id(scope), path if path in self.routes else UNMATCHED)
        scope["lifelong"] = exchange
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
            self.runtime.ended(exchange.route, exchange.status or 499, time.perf_counter() - exchange.started)

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        if self.busy > self.runtime.settings.max_concurrency and scope["path"] not in CALM:
            raise Problem(429)
        form = self.forms.get(scope["path"]) if scope["method"] == "POST" else None
        body = await self._body(scope, receive)
        if body is None:
            return  # the client went away
        if form is not None:
            if _media_type(scope) != b"application/json":
                raise Problem(415)
            reply.exchange.form = form.read(body, reply.exchange.request_id)
        work = asyncio.ensure_future(self.app(scope, _replay(body, receive), reply))
        try:
            done, _ = await asyncio.wait({work}, timeout=self.runtime.settings.timeout_seconds)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if not done and reply.state == "open":
            work.cancel()  # a thread cannot be stopped: it ends by itself and its answer is dropped
            raise Problem(504)
        await work

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        most = self.runtime.settings.max_body_bytes
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > PATIENCE * most):
            raise _too_large(most)
        try:
            return await asyncio.wait_for(_read(receive, most), self.runtime.settings.timeout_seconds)
        except TimeoutError:
            raise Problem(408) from None


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
                await self._start(message["status"], list(message["headers"]))
        elif self.state == "replacing" and not message.get("more_body", False):
            status = self._foreign["status"]
            detail = self._runtime.why_not() if status == 503 else ""
            await self.refuse(Problem(status, detail), _allowed(self._foreign))

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
        if not any(name.lower() == b"x-model-version" for name, _ in head):
            head += _encoded(version_header(self._runtime.version()))
        head.append((b"x-request-id", self.exchange.request_id.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": head})


def _foreign_error(message: Message) -> bool:
    types = [value for name, value in message["headers"] if name.lower() == b"content-type"]
    return message["status"] >= 400 and MEDIA_TYPE.encode() not in types


def _encoded(head: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in head.items()]


def _allowed(message: Message) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in message["headers"] if name.lower() == b"allow"]


def _request_id(scope: Scope) -> str:
    given: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


async def _read(receive: Receive, most: int) -> bytes | None:
    """Return the whole body, or None if the client went away.

    What is over the limit is thrown away while it arrives, and the refusal waits for its end: a client that is
    still sending would otherwise see a broken connection and not the reason. `PATIENCE` bounds that.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= PATIENCE * most:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        size, more = size + len(part), message.get("more_body", False)
        if size <= most:
            parts.append(part)
        else:
            parts.clear()
    if size > most:
        raise _too_large(most)
    return b"".join(parts)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body may have {most} bytes, got more; send fewer rows at a time")


def _media_type(scope: Scope) -> bytes:
    given: bytes = dict(scope["headers"]).get(b"content-type", b"")
    return given.split(b";")[0].strip().lower()


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that first hands out the body that was read."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
