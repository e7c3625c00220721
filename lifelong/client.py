"""A small client of the server: standard library only, one kept connection, errors of the same classes as inside.

```
with Client("http://127.0.0.1:3000") as client:
    client.ready(timeout=30)
    client.add(["a-1"], [[0.0, 0.5, 1.0]])
    client.search(x=[[0.0, 0.5, 1.0]], k=5)["hits"]
```
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, final

from lifelong import errors
from lifelong.errors import ConfigError, DataError, LifelongError, NotFound, TooLarge, Unavailable

URN = "urn:lifelong:error:"
BY_STATUS: dict[int, type[LifelongError]] = {404: NotFound, 408: Unavailable, 413: TooLarge, 429: Unavailable}
STALE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)
Answer = dict[str, Any]


class Listable(Protocol):
    """A tensor or an array."""

    def tolist(self) -> Any:  # noqa: ANN401 - nested lists of numbers
        """Return nested lists."""


Rows = Sequence[Any] | Listable


@final
class Client:
    """Talks to one server over one connection; safe to share between threads, which then take turns.

    A connection that the server had closed while it was idle is opened again and the request repeated: every
    request of this API may be sent twice.

    Args:
        url: `http://host:port`, or https.
        timeout: Seconds to wait for the connection and for each answer.

    Raises:
        ConfigError: The URL is none.
    """

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or timeout <= 0:
            raise ConfigError(f"need a URL like http://127.0.0.1:3000 and timeout > 0, got {url!r} and {timeout}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.url, self._prefix = url, parts.path.rstrip("/")
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._mutex = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        with self._mutex:
            self._connection.close()

    def predict(self, x: Rows, *, top_k: int = 1) -> Answer:
        """Return `version` and, for each sample `[N, ...]`, the `top_k` likeliest labels under `predictions`.

        Raises:
            DataError: The samples are of a wrong shape or value.
            Unavailable: Nothing is live, or nobody answers.
        """
        return self._post("/v1/predict", {"x": _plain(x), "top_k": top_k})

    def embed(self, x: Rows) -> Answer:
        """Return `version`, `space` and the `vectors` of samples `[N, ...]`; raises like `predict`."""
        return self._post("/v1/embed", {"x": _plain(x)})

    def search(
        self,
        x: Rows | None = None,
        *,
        vectors: Rows | None = None,
        space: str | None = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Return `version`, `space` and the best `k` `hits` of each query.

        Args:
            x: Samples `[N, ...]`; or:
            vectors: Embeddings `[N, D]`, and
            space: the space that made them, both as `embed` returned them.
            k: Hits per query.
            where: Payload keys and the values that they must have.

        Raises:
            SpaceError: The vectors are of another space than the live one; embed again.
        """
        body = {
            "x": None if x is None else _plain(x),
            "vectors": None if vectors is None else _plain(vectors),
            "space": space,
            "k": k,
            "where": None if where is None else dict(where),
        }
        return self._post("/v1/search", {name: value for name, value in body.items() if value is not None})

    def add(self, ids: Sequence[str | int], x: Rows, payload: Sequence[Mapping[str, Any]] | None = None) -> Answer:
        """Embed and store samples; return `version`, `space`, `added` and the commit's `sequence`.

        Raises:
            Locked: Another worker is the writer; send it again.
        """
        body: Answer = {"ids": list(ids), "x": _plain(x)}
        if payload is not None:
            body["payload"] = [dict(entry) for entry in payload]
        return self._post("/v1/gallery/add", body)

    def remove(self, ids: Sequence[str | int]) -> Answer:
        """Forget rows; return how many were `removed` and how many `missing`."""
        return self._post("/v1/gallery/remove", {"ids": list(ids)})

    def versions(self) -> Answer:
        """Return what is live, retired, rejected (with reasons) and published."""
        return self._request("GET", "/v1/versions")

    def ready(self, timeout: float = 0.0, *, pause: float = 0.05) -> bool:
        """Return whether a version is live, after waiting at most `timeout` seconds for it."""
        until = time.monotonic() + timeout
        while True:
            try:
                self._request("GET", "/readyz", parse=False)
            except Unavailable:
                if time.monotonic() >= until:
                    return False
                time.sleep(pause)
            else:
                return True

    def _post(self, path: str, body: Answer) -> Answer:
        try:
            data = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise DataError(f"cannot be sent as JSON: {error}; send finite numbers and plain values") from error
        return self._request("POST", path, data)

    def _request(self, method: str, path: str, body: bytes | None = None, *, parse: bool = True) -> Answer:
        with self._mutex:
            status, data = self._exchange(method, self._prefix + path, body)
        if status != 200:
            raise refusal(status, data)
        if not parse:
            return {}
        try:
            answer: Answer = json.loads(data)
        except ValueError:
            raise Unavailable(f"{self.url} does not speak our protocol; check the address") from None
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        head = {"content-type": "application/json"} if body is not None else {}
        kept = self._connection.sock is not None
        for last in (not kept, True):
            try:
                self._connection.request(method, path, body, head)
                answer = self._connection.getresponse()
                return answer.status, answer.read()
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


def _tree(root: type[LifelongError]) -> Iterator[type[LifelongError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


def _plain(x: Rows) -> Any:  # noqa: ANN401 - nested lists
    return x.tolist() if hasattr(x, "tolist") else x
