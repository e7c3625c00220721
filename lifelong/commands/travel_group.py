"""`lifelong replay` and `lifelong diff` as they are typed; what they do is in `lifelong.commands.travel`."""

from __future__ import annotations

from typing import Any

import click

from lifelong.commands.options import JSON, LOCATION

REGISTRY = click.option("--registry", type=LOCATION, required=True, help="Where the versions are.")


@click.command()
@REGISTRY
@click.option("--version", type=int, required=True, help="The one to make again.")
@click.option("--source", required=True, help="The stream that it was made from, as in lifelong train.")
@JSON
def replay(**options: Any) -> None:  # noqa: ANN401
    """Make a version again from its stream and its manifest, and compare the bits; exit 5 if they differ."""
    from lifelong.commands import travel as command

    command.replay(**options)


@click.command()
@click.argument("one", metavar="V1", type=int)
@click.argument("other", metavar="V2", type=int)
@REGISTRY
@JSON
def diff(**options: Any) -> None:  # noqa: ANN401
    """Show what changed from one version to another: weights, labels, memory, settings, data, the gate."""
    from lifelong.commands import travel as command

    command.diff(**options)
