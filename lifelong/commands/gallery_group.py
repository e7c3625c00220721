"""`lifelong gallery ...` as it is typed; what it does is in `lifelong.commands.gallery`, imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lifelong.commands.options import JSON, LOCATION


@click.group()
def gallery() -> None:
    """Work on stored vectors."""


@gallery.command("upgrade")
@click.argument("location")
@click.option("--registry", type=LOCATION, required=True, help="Whose version embeds.")
@click.option("--originals", type=click.Path(path_type=Path), required=True, help="Folder of one ID.npy for each row.")
@click.option("--version", type=int, help="The version; without it, the live one.")
@click.option("--rate", default=100.0, show_default=True, help="Rows embedded per second, at most.")
@click.option("--batch", default=64, show_default=True, help="Rows embedded and stored at once.")
@JSON
def gallery_upgrade(**options: Any) -> None:  # noqa: ANN401
    """Give rows whose originals are at hand the vectors of a newer version; optional, and resumed by itself."""
    from lifelong.commands import gallery as command

    command.upgrade(**options)
