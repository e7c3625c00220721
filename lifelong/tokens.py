"""Bearer tokens: made once, shown once, and stored only as their SHA-256.

A token is 256 random bits, so one round of SHA-256 is enough: there is nothing to guess. What an operator keeps is
a line per token, `NAME SCOPE SHA256`, in a file or in an environment variable.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from lifelong.errors import ConfigError, UnknownName

SCOPES = ("read", "write", "admin")  # each may do what those before it may
MARK = "ll_"  # tokens begin with it, so that a scanner of repositories and logs can find one that leaked
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")


@final
@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token.

    Args:
        name: Who holds it; goes into logs and events.
        scope: `read`, `write` or `admin`.
        sha256: Of the token, 64 hex digits.
    """

    name: str
    scope: str
    sha256: str

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise UnknownName.among("scope", self.scope, SCOPES)
        if not _NAME.fullmatch(self.name) or not _HASH.fullmatch(self.sha256):
            raise ConfigError(
                f"a token needs a name of 1..64 letters, digits, '.', '_' or '-', a SHA-256, got {self.name[:64]!r}; "
                "make one with: lifelong token NAME"
            )

    def may(self, scope: str) -> bool:
        """Return whether it opens what needs `scope`."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    def line(self) -> str:
        """Return what goes into the file."""
        return f"{self.name} {self.scope} {self.sha256}"


def make(name: str, scope: str) -> tuple[str, Token]:
    """Return a new token and what to keep of it.

    Raises:
        ConfigError: The name is not one.
        UnknownName: There is no such scope.
    """
    secret = MARK + secrets.token_urlsafe(32)
    return secret, Token(name, scope, _digest(secret))


def parse(text: str) -> tuple[Token, ...]:
    """Return the tokens in lines (or parts between `;`) of `NAME SCOPE SHA256`; `#` begins a comment.

    Raises:
        ConfigError: A line is none; the message has its number and not its content, which might be a token.

    >>> parse("# none yet")
    ()
    """
    found: dict[str, Token] = {}
    for number, line in enumerate(text.replace(";", "\n").splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or not _HASH.fullmatch(words[2]):
            raise ConfigError(f"token {number} must read NAME SCOPE SHA256; make one with: lifelong token NAME")
        if words[0] in found:
            raise ConfigError(f"two tokens are called {words[0]!r}; names tell them apart in the audit log")
        found[words[0]] = Token(*words)
    return tuple(found.values())


def find(presented: str, tokens: Sequence[Token]) -> Token | None:
    """Return the token whose secret was presented; takes as long whichever it is, or none."""
    digest, found = _digest(presented), None
    for token in tokens:
        if hmac.compare_digest(digest, token.sha256):
            found = token
    return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
