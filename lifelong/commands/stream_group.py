"""`lifelong stream ...` and `lifelong dead ...` as they are typed; what they do is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lifelong.commands.options import HEALTH_FILE, JSON

LOG = click.argument("log", type=click.Path(path_type=Path))
RUN = click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
NUMBERS = click.argument("numbers", nargs=-1, type=int)


@click.group()
def stream() -> None:
    """Write and look at streams of labelled samples."""


@stream.command("append")
@LOG
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--prefix", default="", help="Put before the sample ids; else FILE:ROW, FILE without its folder.")
@JSON
def stream_append(**options: Any) -> None:  # noqa: ANN401
    """Append the samples of .npz and .parquet files, or of folders of them, to an embedded log; make it if need be."""
    from lifelong.commands import stream as command

    command.append(**options)


@stream.command("show")
@click.argument("source")
@click.option("--last", default=0, help="Also show so many of the last records.")
@JSON
def stream_show(**options: Any) -> None:  # noqa: ANN401
    """Show which records a source has; of a log also how far who has read."""
    from lifelong.commands import stream as command

    command.show(**options)


@stream.command("trim")
@LOG
@click.option("--keep", type=int, help="The newest so many stay.")
@click.option("--read", is_flag=True, help="What every reader has committed goes.")
@click.option("--forget", multiple=True, metavar="READER", help="Wait no more for a run that is gone.")
@JSON
def stream_trim(**options: Any) -> None:  # noqa: ANN401
    """Delete old records of an embedded log."""
    from lifelong.commands import stream as command

    command.trim(**options)


@click.command()
@RUN
@HEALTH_FILE
@JSON
def status(**options: Any) -> None:  # noqa: ANN401
    """Show how far a run is, by its newest commit, whether somebody is running it, and how it last said it was."""
    from lifelong.commands import status as command

    command.run(**options)


@click.group()
def dead() -> None:
    """Look at records that a trainer could not learn, and have them tried again."""


@dead.command("list")
@RUN
@JSON
def dead_list(**options: Any) -> None:  # noqa: ANN401
    """List the dead letters of a run, as of its last commit."""
    from lifelong.commands import stream as command

    command.dead_list(**options)


@dead.command("replay")
@RUN
@NUMBERS
def dead_replay(**options: Any) -> None:  # noqa: ANN401
    """Have letters tried again at the next start, all of them if none is numbered; the trainer must be stopped."""
    from lifelong.commands import stream as command

    command.dead_replay(**options)


@dead.command("drop")
@RUN
@NUMBERS
def dead_drop(**options: Any) -> None:  # noqa: ANN401
    """Forget letters, all of them if none is numbered; the trainer must be stopped."""
    from lifelong.commands import stream as command

    command.dead_drop(**options)
