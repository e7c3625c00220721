"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    ParamType = click.ParamType[str | Path]
else:
    ParamType = click.ParamType  # generic in new versions only

DATA_ROOT = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    envvar="LIFELONG_DATA",
    help="Folder of data sets; without it, installed and packaged ones.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
SEED = click.option("--seed", default=0, show_default=True, help="Of everything that is drawn.")


class Location(ParamType):
    """A folder, or the address of a store, whose two slashes a path would lose."""

    name = "location"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> str | Path:
        """Return an address as it is, and a path for anything else."""
        return value if "://" in str(value) else Path(value)


LOCATION = Location()
REGISTRY = click.argument("registry", type=LOCATION)
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Argument of the strategy; NAME.KEY=VALUE in a chain."
)
HEALTH_FILE = click.option(
    "--health-file",
    type=click.Path(path_type=Path),
    help="Says whether a stream's run is well; health.json in its folder if not given.",
)
