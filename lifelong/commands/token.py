"""`lifelong token`: make a token; it is shown once, and what is kept of it cannot be turned back."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lifelong import tokens
from lifelong.commands import tables
from lifelong.errors import ConfigError


def run(*, name: str, scope: str, file: Path | None, as_json: bool) -> None:
    """Make one; with `file`, append its line there."""
    secret, token = tokens.make(name, scope)
    if file is not None:
        _append(file, token)
    if as_json:
        tables.emit({"token": secret, "line": token.line(), "file": str(file) if file else None})
        return
    click.echo(secret)
    where = f"its line was added to {file}" if file else f"for LIFELONG_TOKENS or a token file: {token.line()}"
    click.echo(f"this is the token of {name!r} ({scope}), shown this once; {where}", err=True)


def _append(file: Path, token: tokens.Token) -> None:
    """Add a line to a file that only its owner reads; a running server follows within a moment."""
    text = file.read_text() if file.exists() else ""
    if any(known.name == token.name for known in tokens.parse(text)):
        raise ConfigError(
            f"{file} has a token called {token.name!r} already; take its line out first, or choose a name"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with open(descriptor, "a") as out:  # noqa: PTH123 - a descriptor, not a path
        out.write(("" if text.endswith("\n") or not text else "\n") + token.line() + "\n")
