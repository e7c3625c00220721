"""Who may ask for what: bearer tokens with a scope, closed by default for everything that changes something.

| route | scope |
|---|---|
| health, and the static page of the dashboard | none |
| what is only read | `read`; nobody needs a token for it while none is set, or with `LIFELONG_PUBLIC_READ` |
| the gallery's rows, feedback, and predictions that are to be remembered for it | `write` |
| `/v1/admin/...` | `admin` |

Without any token, writing and administration are closed, unless the server was told to be insecure; then they are
open to who connects over loopback under a loopback name (a web page that resolves its own name to 127.0.0.1 is
refused).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, final

from lifelong import files
from lifelong.errors import ConfigError, LifelongError
from lifelong.tokens import Token, find, parse
from serving.exchange import Exchange
from serving.problems import Problem
from serving.settings import Settings

log = logging.getLogger("lifelong.serving")

OPEN = frozenset({"/livez", "/readyz", "/healthz", "/ui"})
WRITES = frozenset({"/v1/gallery/add", "/v1/gallery/remove", "/v1/feedback"})
ADMIN = "/v1/admin/"
CLOSED = (
    "closed while no token is set; make one with 'lifelong token NAME --scope {scope}', or serve --insecure on loopback"
)
INSECURE = "only for loopback: this server was started with --insecure; ask it as 127.0.0.1 or localhost"


@final
class Keys:
    """The tokens of this server.

    Args:
        settings: Name their file, hold their lines, or say that there are none.

    Raises:
        ConfigError: A line is no token, the file cannot be read, or tokens are set on an insecure server.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = Path(settings.tokens_file) if settings.tokens_file else None
        self._given = parse(settings.tokens)
        self._seen = files.signature(self._path) if self._path else None
        self._tokens = (*self._given, *self._read())
        self.closed = bool(settings.tokens or settings.tokens_file)  # also with an empty file: nobody gets in
        if self.closed and settings.insecure:
            raise ConfigError("tokens are set and the server is to be insecure; take one of both away")

    def refresh(self) -> None:
        """Read the file again if it changed; a file that cannot be read changes nothing, and is logged once."""
        seen = files.signature(self._path) if self._path else None
        if seen == self._seen:
            return
        try:
            self._tokens = (*self._given, *self._read())
        except LifelongError as error:
            log.error("the tokens stay as they were: %s", error)
        else:
            log.info("tokens read anew: %s", ", ".join(f"{t.name}:{t.scope}" for t in self._tokens) or "none")
        self._seen = seen

    def admit(self, scope: MutableMapping[str, Any], exchange: Exchange) -> None:
        """Let a request in and note by whose token, or refuse it.

        Raises:
            Problem: 401 without a token that is known, 403 if it may not do this.
        """
        need = needed(scope["path"])
        if need is None:
            return
        head = exchange.head
        if not self.closed:
            if need != "read":
                self._without_tokens(scope, head, need)
            exchange.who = "insecure" if self._settings.insecure else ""
            return
        token = self._token(head)
        exchange.who, exchange.writes = (token.name, token.may("write")) if token else ("", False)
        if need == "read" and self._settings.public_read:
            return
        if token is None:
            raise Problem(401)
        if not token.may(need):
            raise Problem(403, f"this token may {token.scope}, and this needs {need}")

    def _token(self, head: Mapping[bytes, bytes]) -> Token | None:
        """Return the token of a request; one that is not known may be newer than the last look at the file."""
        kind, _, secret = head.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            return None
        found: Token | None = find(secret.strip(), self._tokens)
        if found is None:
            self.refresh()
            found = find(secret.strip(), self._tokens)
        return found

    def _without_tokens(self, scope: MutableMapping[str, Any], head: Mapping[bytes, bytes], need: str) -> None:
        if not self._settings.insecure:
            raise Problem(403, CLOSED.format(scope=need))
        host = head.get(b"host", b"").decode("latin-1")
        if not (_loopback(str((scope.get("server") or ("",))[0])) and _loopback(_name(host))):
            raise Problem(403, INSECURE)

    def _read(self) -> tuple[Token, ...]:
        if self._path is None:
            return ()
        try:
            return parse(self._path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the token file {self._path} cannot be read: {type(error).__name__}") from None


def needed(path: str) -> str | None:
    """Return the scope that a path needs, None if anybody may ask for it."""
    if path in OPEN:
        return None
    return "admin" if path.startswith(ADMIN) else "write" if path in WRITES else "read"


def _name(host: str) -> str:
    """Return a `Host` header without its port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
