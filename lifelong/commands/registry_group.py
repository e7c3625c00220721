"""`lifelong registry ...` as it is typed; what it does is in `lifelong.commands.registry`, imported when it runs."""

from __future__ import annotations

from typing import Any

import click

from lifelong.commands.options import JSON, REGISTRY


@click.group()
def registry() -> None:
    """Look at versions, and choose the live one."""


@registry.command("list")
@REGISTRY
@JSON
def registry_list(**options: Any) -> None:  # noqa: ANN401
    """List versions and what happened."""
    from lifelong.commands import registry as command

    command.listing(**options)


@registry.command("show")
@REGISTRY
@click.argument("version", type=int)
@JSON
def registry_show(**options: Any) -> None:  # noqa: ANN401
    """Show one version: its manifest and the gate's report."""
    from lifelong.commands import registry as command

    command.show(**options)


@registry.command("promote")
@REGISTRY
@click.argument("version", type=int)
@click.option("--why", default="", help="For the history.")
def registry_promote(**options: Any) -> None:  # noqa: ANN401
    """Make a version live after verifying it."""
    from lifelong.commands import registry as command

    command.promote(**options)


@registry.command("rollback")
@REGISTRY
@click.option("--to", type=int, help="The version; without it, the one that was live before.")
@click.option("--why", default="", help="For the history.")
def registry_rollback(**options: Any) -> None:  # noqa: ANN401
    """Go back to an earlier version."""
    from lifelong.commands import registry as command

    command.rollback(**options)


@registry.command("verify")
@REGISTRY
@click.argument("version", type=int, required=False)
@JSON
def registry_verify(**options: Any) -> None:  # noqa: ANN401
    """Check every file of one version, or of all; exit 5 if one is damaged."""
    from lifelong.commands import registry as command

    command.verify(**options)
