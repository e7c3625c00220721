"""One request on its way through the server: who asks, for what, and how it ends."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from lifelong.errors import DataError

UNMATCHED = "unmatched"
SEQUENCE = "x-gallery-sequence"  # head of an answer to a write, and of a request that must see that write
ONCE = "idempotency-key"  # head of an admin call: the same call, sent again, has the same one
CALM = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})  # answered even when everything else is refused
_READ = frozenset({b"x-request-key", b"x-model-version", b"traceparent", SEQUENCE.encode(), ONCE.encode()})
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass
class Exchange:
    """One request and its answer.

    Args:
        request_id: The client's own, or a new one.
        route: Template of the path; what is served nowhere is `unmatched`.
        method: Of HTTP.
        head: Names (lower case) and values of its head.
        client: Address it came from.
        who: Name of the token it came with; empty without one.
        writes: Whether it may write; its token decides, where there are tokens.
        key: Decides between live version and canary: the same key gets the same one.
        pinned: Version that it asks for in its head; empty for whichever is live.
        after: Number of the gallery's change that it must see; empty for whatever is there.
        idempotency: The call's own key; the same call, sent again, has the same one. Empty without one.
        trace: The `traceparent` of its head; empty without one.
        form: What its body said.
        status: Of the answer; 0 until there is one.
        started: When it came, as of `time.perf_counter`.
    """

    request_id: str = ""
    route: str = UNMATCHED
    method: str = "POST"
    head: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)  # a token may be in it
    client: str = ""
    who: str = ""
    writes: bool = True
    key: str = ""
    pinned: str = ""
    after: str = ""
    idempotency: str = ""
    trace: str = ""
    form: Any = None
    status: int = 0
    started: float = field(default_factory=time.perf_counter)

    @property
    def calm(self) -> bool:
        """Whether machines ask for it all the time: health and metrics."""
        return self.route in CALM

    @property
    def once(self) -> str:
        """The key in `idempotency`, without the quotes of a structured field; raises `DataError` if it is none."""
        given = self.idempotency
        key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
        if given and not _PLAIN.fullmatch(key.encode("latin-1")):
            raise DataError(f"{ONCE} must be 1..64 letters, digits, '.', '_' or '-', got {given!r}")
        return key

    @property
    def change(self) -> int:
        """The number in `after`, 0 if there is none; raises `DataError` if it is no number."""
        if not self.after:
            return 0
        if not (self.after.isascii() and self.after.isdigit() and len(self.after) < 19):
            raise DataError(f"{SEQUENCE} must be the number that the answer to a write named, got {self.after!r}")
        return int(self.after)

    @classmethod
    def of(cls, scope: MutableMapping[str, Any], routes: frozenset[str]) -> Exchange:
        """Return the exchange of an ASGI request."""
        head, path = dict(scope["headers"]), scope["path"]
        given = head.get(b"x-request-id")
        request_id = given.decode() if given and _PLAIN.fullmatch(given) else os.urandom(16).hex()
        found = cls(
            request_id=request_id,
            route=path if path in routes else UNMATCHED,
            method=scope["method"],
            head=head,
            client=str((scope.get("client") or ("",))[0]),
            key=request_id,
        )
        if not head.keys().isdisjoint(_READ):  # most requests have none of them
            found.key = _text(head, b"x-request-key", 256) or request_id
            found.pinned, found.trace = _text(head, b"x-model-version", 32), _text(head, b"traceparent", 64)
            found.after, found.idempotency = _text(head, SEQUENCE.encode(), 32), _text(head, ONCE.encode(), 80)
        return found


def _text(head: Mapping[bytes, bytes], name: bytes, most: int) -> str:
    return head.get(name, b"")[:most].decode("latin-1")


def assigned(key: str, salt: object) -> float:
    """Return where in 0..1 a key falls: the same everywhere and always, and another place for each salt.

    >>> assigned("user-1", 3) == assigned("user-1", 3) != assigned("user-1", 4)
    True
    """
    return int.from_bytes(hashlib.sha256(f"{salt}:{key}".encode()).digest()[:8], "big") / 2**64
