"""The one form in which the server says no: RFC 9457 `application/problem+json`, short, and never a traceback."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import final

from starlette.responses import Response

from lifelong.errors import LifelongError

MEDIA_TYPE = "application/problem+json"
URN = "urn:lifelong:error:"  # + the name of a class in lifelong/errors.py
LONGEST_DETAIL = 600  # characters; the whole body stays under 1 KB
HINTS = {
    401: "needs the header 'authorization: Bearer TOKEN' with a token of this server; 'lifelong token' makes one",
    403: "this token may not do that",
    404: "nothing is served at this path; /docs.json lists what is",
    405: "this path does not take this method; /docs.json lists what it takes",
    408: "the request body did not arrive in time; send it faster or send less",
    415: "send a JSON object with the header 'content-type: application/json' (samples also as application/x-npy)",
    429: "too many requests are in flight; try again in a moment",
    500: "a bug or a broken dependency; the server's log has this request id",
    503: "not ready to answer; try again in a moment",
    504: "the answer took too long; send fewer rows",
}


@final
class Problem(Exception):
    """A refusal on its way to the client.

    Args:
        status: HTTP status, 400..599.
        detail: What is wrong, what was got, what to do; a hint of the status if empty.
        kind: `about:blank`, or a URN that names the error's class.
        retry: Seconds after which it may be tried again, of a 429 or 503.
    """

    def __init__(self, status: int, detail: str = "", kind: str = "about:blank", *, retry: int = 1) -> None:
        super().__init__(detail)
        self.status, self.kind, self.retry = status, kind, retry
        self.title = _title(status) if kind == "about:blank" else kind.removeprefix(URN)
        self.detail = _short(detail or HINTS.get(status, self.title))

    @classmethod
    def of(cls, error: LifelongError) -> Problem:
        """Return the problem that says what `error` says, under its own HTTP status."""
        return cls(
            error.http_status, str(error), URN + type(error).__name__, retry=5 if error.http_status == 429 else 1
        )

    def response(self, version: int | None, request_id: str) -> Response:
        """Return the answer that says this; `version` is the live one."""
        head = version_header(version) | self.head()
        return Response(self.body(version, request_id), self.status, head, MEDIA_TYPE)

    def head(self) -> dict[str, str]:
        """Return what its status asks for besides the body."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        if self.title == "Locked":
            return {"connection": "close"}  # the next connection may reach the worker that writes
        return {"retry-after": str(self.retry)} if self.status in (429, 503) else {}

    def body(self, version: int | None, request_id: str) -> bytes:
        """Return the JSON document; version and request id are extension members."""
        told = {"type": self.kind, "title": self.title, "status": self.status, "detail": self.detail}
        return json.dumps({**told, "version": version, "request_id": request_id}, ensure_ascii=True).encode()


def version_header(version: int | None) -> dict[str, str]:
    """Return the header that names the version that answered.

    >>> version_header(None)
    {'x-model-version': 'none'}
    """
    return {"x-model-version": "none" if version is None else str(version)}


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _short(text: str) -> str:
    """One line, printable ASCII only: what a client sent may be quoted in it and end up in a log."""
    line = "".join(c if " " <= c <= "~" else "?" for c in " ".join(text.split()))
    return line if len(line) <= LONGEST_DETAIL else line[: LONGEST_DETAIL - 3] + "..."
