"""Request bodies: read with a limit and at a pace, and decoded by their content type."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

from lifelong.errors import TooLarge
from serving import binary
from serving.exchange import Exchange
from serving.forms import Form
from serving.problems import Problem

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

LATE = "the body did not arrive in time"
PATIENCE = 4  # times the largest body are read, and thrown away, so that the client hears why
SHORT = 256  # bytes of a query
JSON, NPY, RAW = "application/json", "application/x-npy", "application/octet-stream"


async def body(exchange: Exchange, receive: Receive, most: int, seconds: float) -> bytes | None:
    """Return the whole body, or None if the client went away.

    Args:
        exchange: The request.
        receive: Of ASGI.
        most: Bytes that a body may have.
        seconds: That it may take.

    Raises:
        TooLarge: It is larger, declared or not.
        Problem: 408, it did not arrive in time.
    """
    declared = exchange.head.get(b"content-length", b"0")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > PATIENCE * most):
        raise _too_large(most)
    task: Any = asyncio.current_task()
    late = asyncio.get_running_loop().call_later(seconds, task.cancel, LATE)  # `asyncio.timeout` takes longer
    try:
        return await _read(receive, most)
    except asyncio.CancelledError as error:
        if error.args != (LATE,) or task.uncancel():
            raise  # somebody else wants it to end
        raise Problem(408) from None
    finally:
        late.cancel()


def form(kind: type[Form], scope: Scope, data: bytes, exchange: Exchange) -> Form:
    """Return the form that a body holds: JSON, or for samples also `.npy` and bare float32 numbers.

    Raises:
        Problem: 415, neither content type.
        DataError: It does not hold what its content type says, or not the fields of the form.
    """
    media = exchange.head.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
    if media == JSON:
        return kind.read(data, exchange)
    if media not in (NPY, RAW) or not kind.binary:
        raise Problem(415)
    rows = binary.npy(data) if media == NPY else binary.raw(data)
    return kind.take({"x": rows, **dict(_parameters(scope.get("query_string", b"")))}, exchange)


def replay(data: bytes, receive: Receive) -> Receive:
    """Return a `receive` that first hands out the body that was read."""
    waiting = [{"type": "http.request", "body": data, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _parameters(query: bytes) -> tuple[tuple[str, object], ...]:
    """Return names and values of a query, remembered if it is short: a client sends the same one every time."""
    return _remembered(query) if len(query) <= SHORT else _parsed(query)


def _parsed(query: bytes) -> tuple[tuple[str, object], ...]:
    pairs = urllib.parse.parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return tuple((name, binary.plain(value)) for name, value in pairs)


_remembered = lru_cache(256)(_parsed)


async def _read(receive: Receive, most: int) -> bytes | None:
    """Read to the end or to the limit.

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
