"""`lifelong config ...` and `--config` as they are typed; what they do is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lifelong.commands.options import JSON

RENAMED = {"run": "run_folder", "set": "settings"}  # keys of a file whose options have another name in Python


@click.group()
def config() -> None:
    """Look at and check the settings of `lifelong train` in a file."""


@config.command("schema")
def config_schema() -> None:
    """Print the JSON schema of a file for `lifelong train --config`."""
    from lifelong.commands import config as command

    command.schema()


@config.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@JSON
def config_check(**options: Any) -> None:  # noqa: ANN401
    """Check a file for `lifelong train --config`: names, types and ranges; nothing is run."""
    from lifelong.commands import config as command

    command.check(**options)


def _loaded(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Make what a file sets the defaults of this command; what is typed wins."""
    if path is not None:
        from lifelong.following.config import TABLES, options, read

        found = {RENAMED.get(name, name): value for name, value in options(read(path)).items()}
        ctx.meta["tables"] = {RENAMED.get(name, name): found.pop(RENAMED.get(name, name)) for name in TABLES}
        ctx.default_map = found
    return path


CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=_loaded,
    help="TOML file with any of these options; those that are typed win.",
)


def with_tables(given: dict[str, list[str]], options: dict[str, Any]) -> None:
    """Put the `KEY=VALUE` of a file before those that were typed."""
    if given:
        from lifelong.following.config import joined

        options.update({name: joined(pairs, options[name]) for name, pairs in given.items()})
