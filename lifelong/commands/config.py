"""`lifelong config`: what may stand in a file for `lifelong train --config`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from lifelong import compose
from lifelong.commands import tables
from lifelong.errors import ConfigError
from lifelong.following import config
from lifelong.following.settings import Follow


def schema() -> None:
    """Print the JSON schema."""
    click.echo(json.dumps(config.schema(), indent=2))


def check(*, file: Path, as_json: bool) -> None:
    """Say what a file sets; raise `ConfigError` where it is wrong.

    The strategy is made as well, so its arguments are checked by name.
    """
    values = config.read(file)
    compose.strategy(values.get("strategy", config.Config().strategy), config.pairs(values.get("set", {})))
    if as_json:
        tables.emit(values)
        return
    told = config.options(values)
    every = [(name, ", ".join(value) if isinstance(value, list) else str(value)) for name, value in told.items()]
    tables.show(f"{file} is right", ["option", "value"], [row for row in every if row[1]])


def again(file: Path, given: Sequence[str]) -> Callable[[], Follow]:
    """Return what reads the settings of a stream anew from a file, for a run that is under way.

    Args:
        file: As it is now.
        given: Settings that were typed as `KEY=VALUE`; they go on winning.
    """
    first = config.read(file)

    def read() -> Follow:
        values = config.read(file)
        others = {name for name in {*first, *values} if name != "follow" and first.get(name) != values.get(name)}
        if others:
            raise ConfigError(f"{', '.join(sorted(others))} may not change while it runs, so nothing was changed")
        pairs = config.joined(config.pairs(values.get("follow", {})), given)
        return Follow.of(compose.parse(pairs, ["follow"])["follow"])

    return read
