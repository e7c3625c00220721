"""How the client speaks HTTP: one kept connection, the token, repeats with a pause, and errors of our own classes."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from lifelong import errors
from lifelong.errors import (
    Behind,
    Busy,
    ConfigError,
    DataError,
    Forbidden,
    LifelongError,
    Locked,
    NotFound,
    TooLarge,
    Unavailable,
)

SEQUENCE = "x-gallery-sequence"
URN = "urn:lifelong:error:"
BY_STATUS: dict[int, type[LifelongError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    413: TooLarge,
    429: Busy,
}
STALE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)
LONGEST_PAUSE = 30.0  # seconds, whatever the server asks for


@final
@dataclass
class Written:
    """The newest change that a client made in a gallery: its reads see at least that one."""

    sequence: int = 0


@final
class Wire:
    """One connection to one server; safe to share between threads, which then take turns.

    A connection that the server had closed while it was idle is opened again and the request repeated: what may not
    be done twice needs a head by which the server knows it again.

    Args:
        url: `http://host:port`, or https.
        timeout: Seconds to wait for the connection and for each answer.
        token: Sent as `authorization: Bearer ...`.
        retries: Times that a request is repeated if the server is not there, not ready or busy.
        pause: Seconds before the first repeat; doubled each time, or as long as the server asks for.
        written: What requests must see, and answers to writes move on; may be shared between connections.

    Raises:
        ConfigError: The URL is none.
    """

    def __init__(
        self, url: str, timeout: float, token: str, retries: int, pause: float, written: Written | None = None
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or timeout <= 0 or retries < 0:
            raise ConfigError(
                f"need a URL like http://127.0.0.1:3000, timeout > 0, retries >= 0, got {url!r}, {timeout}, {retries}"
            )
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.url, self._prefix, self.retries, self.pause = url, parts.path.rstrip("/"), retries, pause
        self.written = written or Written()
        self._head = {"authorization": f"Bearer {token}"} if token else {}
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._mutex = threading.Lock()

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        with self._mutex:
            self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        *,
        once: bool = False,
        head: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the body of an answer.

        Args:
            method: Of HTTP.
            path: Below the URL.
            body: Of the request.
            kind: Its content type.
            once: Do not repeat it.
            head: Further fields of its head.

        Raises:
            LifelongError: What the server said no with, or `Unavailable`.
        """
        heads = {**self._head, **({"content-type": kind} if body is not None else {}), **(head or {})}
        if after := self.written.sequence:
            heads[SEQUENCE] = str(after)
        for left in range(0 if once else self.retries, -1, -1):
            asked: float | None = None
            try:
                with self._mutex:
                    status, data, asked = self._exchange(method, self._prefix + path, body, heads)
                if status == 200:
                    return data
                raise refusal(status, data)
            except (Unavailable, Locked) as error:
                if isinstance(error, Locked):
                    self.close()  # the next connection may reach the worker that writes
                if not left:
                    if isinstance(error, Behind):
                        self.written.sequence = 0  # told once: what was written is not in the gallery that answers
                    raise
            doubled = self.pause * 2 ** (self.retries - left)
            time.sleep(min(LONGEST_PAUSE, doubled if asked is None else max(asked, self.pause)))
        raise AssertionError("the last attempt returns or raises")

    def _exchange(
        self, method: str, path: str, body: bytes | None, head: dict[str, str]
    ) -> tuple[int, bytes, float | None]:
        kept = self._connection.sock is not None
        for last in (not kept, True):
            try:
                self._connection.request(method, path, body, head)
                answer = self._connection.getresponse()
                asked, wrote = answer.headers.get("retry-after", ""), answer.headers.get(SEQUENCE, "")
                self.written.sequence = int(wrote) if wrote.isdigit() else self.written.sequence
                return answer.status, answer.read(), float(asked) if asked.isdigit() else None
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if last or not isinstance(error, STALE):
                    raise Unavailable(f"{self.url} does not answer: {error or type(error).__name__}") from error
        raise AssertionError("the second attempt returns or raises")


def refusal(status: int, body: bytes) -> LifelongError:
    """Return the error that a problem document stands for: of the class it names, else by status."""
    try:
        problem = json.loads(body)
        kind, detail = str(problem["type"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        kind, detail = "", f"the server answered {status}"
    known = {each.__name__: each for each in _tree(LifelongError)}
    fallback = BY_STATUS.get(status) or (DataError if status < 500 else Unavailable if status > 500 else LifelongError)
    return known.get(kind.removeprefix(URN), fallback)(detail)


def numbers(x: Any) -> bytes | None:  # noqa: ANN401 - a tensor or an array
    """Return the little-endian float32 bytes of an array or a tensor; None of anything else."""
    array = x.numpy() if hasattr(x, "numpy") else x
    return bytes(array.astype("<f4").tobytes()) if hasattr(array, "astype") else None


def _tree(root: type[LifelongError]) -> Iterator[type[LifelongError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)
