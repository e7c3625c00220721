"""A small client of the server: standard library only, one kept connection, errors of the same classes as inside.

```
with Client("http://127.0.0.1:3000", token=token, retries=3) as client:
    client.ready(timeout=30)
    client.add(["a-1"], [[0.0, 0.5, 1.0]])
    client.search(x=[[0.0, 0.5, 1.0]], k=5)["hits"]
```
`lifelong.awaited.AsyncClient` has the same methods, to be awaited.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, final

from lifelong.errors import DataError, Unavailable
from lifelong.wire import Wire, Written, numbers, refusal

__all__ = ["Client", "Written", "refusal"]

Answer = dict[str, Any]


class Listable(Protocol):
    """A tensor or an array."""

    def tolist(self) -> Any:  # noqa: ANN401 - nested lists of numbers
        """Return nested lists."""


Rows = Sequence[Any] | Listable


@final
class Client:
    """Talks to one server over one connection; safe to share between threads, which then take turns.

    Args:
        url: `http://host:port`, or https.
        timeout: Seconds to wait for the connection and for each answer.
        token: Of the server, where it needs one.
        retries: Times that a request is repeated if the server is not there, not ready or busy; every request of this
            client may be sent twice (those of `admin` have a key by which the server knows them again).
        pause: Seconds before the first repeat; doubled each time, or as long as the server asks for.
        binary: Send arrays and tensors as float32 bytes: shorter, and faster to read than JSON.
        written: Share it between clients that must see each other's writes; a client always sees its own.

    Raises:
        ConfigError: The URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        token: str = "",
        retries: int = 0,
        pause: float = 0.1,
        binary: bool = False,
        written: Written | None = None,
    ) -> None:
        self.url, self.binary, self._wire = url, binary, Wire(url, timeout, token, retries, pause, written)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        self._wire.close()

    def predict(self, x: Rows, *, top_k: int = 1, remember: bool = False, version: int | None = None) -> Answer:
        """Return `version` and, for each sample `[N, ...]`, the `top_k` likeliest labels under `predictions`.

        Args:
            x: Samples `[N, ...]`.
            top_k: Labels per sample, likeliest first.
            remember: Return an `id` per prediction, by which `feedback` can label it.
            version: Ask this version and no other.

        Raises:
            DataError: The samples are of a wrong shape or value.
            NotFound: The version is not held (any more).
            Unavailable: Nothing is live, or nobody answers.
        """
        return self._ask_x("/v1/predict", x, top_k=top_k, remember=remember or None, model_version=version)

    def embed(self, x: Rows, *, version: int | None = None) -> Answer:
        """Return `version`, `space` and the `vectors` of samples `[N, ...]`; raises like `predict`."""
        return self._ask_x("/v1/embed", x, model_version=version)

    def search(
        self,
        x: Rows | None = None,
        *,
        vectors: Rows | None = None,
        space: str | None = None,
        k: int = 10,
        offset: int = 0,
        where: Mapping[str, Any] | None = None,
        version: int | None = None,
    ) -> Answer:
        """Return `version`, `space` and the best `k` `hits` of each query; rows that this client added are among them.

        Args:
            x: Samples `[N, ...]`; or:
            vectors: Embeddings `[N, D]`, and
            space: the space that made them, both as `embed` returned them.
            k: Hits per query.
            offset: Hits to leave out at the front, for paging.
            where: Payload keys and the values that they must have.
            version: Ask this version and no other.

        Raises:
            SpaceError: The vectors are of another space than the live one; embed again.
            Behind: Another gallery answers than the one that was written; raised once, then what is there is read.
        """
        rest = {"space": space, "k": k, "offset": offset or None, "model_version": version}
        if vectors is None and where is None and x is not None:
            return self._ask_x("/v1/search", x, **rest)
        body = {"x": _plain(x), "vectors": _plain(vectors), "where": None if where is None else dict(where), **rest}
        return self._post("/v1/search", body)

    def add(self, ids: Sequence[str | int], x: Rows, payload: Sequence[Mapping[str, Any]] | None = None) -> Answer:
        """Embed and store samples; return `version`, `space`, `added` and the commit's `sequence`.

        Raises:
            Locked: Another worker is the writer; send it again.
        """
        rows = None if payload is None else [dict(entry) for entry in payload]
        return self._post("/v1/gallery/add", {"ids": list(ids), "x": _plain(x), "payload": rows})

    def get(self, ids: Sequence[str | int], *, vectors: bool = False) -> Answer:
        """Return the stored `rows` of these ids, and how many are `missing`."""
        return self._post("/v1/gallery/get", {"ids": list(ids), "vectors": vectors or None})

    def remove(self, ids: Sequence[str | int]) -> Answer:
        """Forget rows; return how many were `removed` and how many `missing`."""
        return self._post("/v1/gallery/remove", {"ids": list(ids)})

    def feedback(self, labels: Mapping[str, str | int], *, revisions: Mapping[str, int] | None = None) -> Answer:
        """Say what predictions should have been, by the ids that `predict(remember=True)` returned.

        Args:
            labels: By id.
            revisions: Number of the label, from 1, by id, where labels may arrive in another order than they were
                given: the highest counts, not the newest to arrive.

        Raises:
            DataError: A revision is of no label.
            Busy: Too many labels wait for the trainer; send them again later.
        """
        given = revisions or {}
        if lost := sorted(set(given) - set(labels)):
            raise DataError(f"there is a revision of {lost[0]!r}, and no label; give both")
        told = [
            {"prediction": p, "label": y, **({"revision": given[p]} if p in given else {})} for p, y in labels.items()
        ]
        return self._post("/v1/feedback", {"labels": told})

    def labels(self, *, version: int | None = None) -> Answer:
        """Return `version` and all `labels` that it knows; raises like `predict`."""
        head = {} if version is None else {"x-model-version": str(version)}
        return self._parse(self._wire.ask("GET", "/v1/labels", head=head))

    def versions(self) -> Answer:
        """Return what is live, retired, rejected (with reasons) and published."""
        return self._parse(self._wire.ask("GET", "/v1/versions"))

    def rollout(self) -> Answer:
        """Return canary, shadow, and what each worker holds ready."""
        return self._parse(self._wire.ask("GET", "/v1/rollout"))

    def admin(self, what: str, /, *, key: str = "", **fields: Any) -> Answer:  # noqa: ANN401 - the fields of that route
        """Change what is served: `admin("promote", version=3, why="...")`, or rollback, canary, shadow.

        Args:
            what: The last part of the route.
            key: Of this step, where the call may be repeated from outside, at most 64 letters, digits, `.`, `_`, `-`;
                the server does a step once. By default a new one for each call, the same for its `retries`.
            fields: Those of the route.

        Raises:
            Forbidden: The token is not of the scope admin.
            Refused: A worker did not let the version in; nothing was changed.
        """
        return self._post(f"/v1/admin/{what}", fields, {"idempotency-key": f'"{key or uuid.uuid4().hex}"'})

    def ready(self, timeout: float = 0.0, *, pause: float = 0.05) -> bool:
        """Return whether a version is live, after waiting at most `timeout` seconds for it."""
        until = time.monotonic() + timeout
        while True:
            try:
                self._wire.ask("GET", "/readyz", once=True)
            except Unavailable:
                if time.monotonic() >= until:
                    return False
                time.sleep(pause)
            else:
                return True

    def _ask_x(self, path: str, x: Rows, **rest: Any) -> Answer:  # noqa: ANN401 - plain values
        data = numbers(x) if self.binary else None
        if data is None:
            return self._post(path, {"x": _plain(x), **rest})
        query = urllib.parse.urlencode({k: str(v).lower() for k, v in rest.items() if v is not None})
        return self._parse(self._wire.ask("POST", f"{path}?{query}", data, "application/octet-stream"))

    def _post(self, path: str, body: Answer, head: Mapping[str, str] | None = None) -> Answer:
        given = {name: value for name, value in body.items() if value is not None}
        try:
            data = json.dumps(given, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise DataError(f"cannot be sent as JSON: {error}; send finite numbers and plain values") from error
        return self._parse(self._wire.ask("POST", path, data, head=head))

    def _parse(self, data: bytes) -> Answer:
        try:
            answer: Answer = json.loads(data)
        except ValueError:
            raise Unavailable(f"{self.url} does not speak our protocol; check the address") from None
        return answer


def _plain(x: Any) -> Any:  # noqa: ANN401 - nested lists
    return x.tolist() if hasattr(x, "tolist") else x
