"""`lifelong config`: what may stand in a file for `lifelong train --config`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lifelong import compose
from lifelong.commands import tables
from lifelong.following import config


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
