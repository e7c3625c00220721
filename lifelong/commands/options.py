"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

DATA_ROOT = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    envvar="LIFELONG_DATA",
    help="Folder of data sets; without it, installed and packaged ones.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
SEED = click.option(
    "--seed",
    type=click.IntRange(-(2**63), 2**63 - 1),
    default=0,
    show_default=True,
    help="Of everything that is drawn.",
)


def location(value: str | Path) -> str | Path:
    """Return an address as it is, for a path would lose one of its slashes, and a path for anything else."""
    return value if "://" in str(value) else Path(value)


LOCATION = location
REGISTRY = click.argument("registry", type=LOCATION)
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Argument of the strategy; NAME.KEY=VALUE in a chain."
)
HEALTH_FILE = click.option(
    "--health-file",
    type=click.Path(path_type=Path),
    help="Says whether a stream's run is well; health.json in its folder if not given.",
)
