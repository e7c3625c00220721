"""`lifelong bench ...`: the options of its commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lifelong.commands.options import DATA_ROOT, JSON

SINK = "Also write each cell for tensorboard, wandb (offline) or mlflow (files)."

SIZES = "Argument of the backbone; where it is auto, of the MLPs."
CUT = "Option of a scenario, or of all, e.g. experiences=10."


@click.group()
def bench() -> None:
    """Compare strategies."""


@bench.command("run")
@click.option("--strategies", default="naive,replay,joint", show_default=True, help="Separated by commas.")
@click.option("--scenarios", default="split-fmnist", show_default=True, help="Separated by commas.")
@click.option("--scenario-set", multiple=True, metavar="[SCENARIO.]KEY=VALUE", help=CUT)
@click.option("--seeds", default=5, show_default=True, help="Runs of each pair, with seeds 0, 1, ...")
@click.option("--epochs", default=2, show_default=True, help="Passes over each experience.")
@click.option("--batch-size", default=32, show_default=True, help="New samples in a step.")
@click.option(
    "--optimizer",
    type=click.Choice(["sgd", "adam", "adamw"]),
    default="sgd",
    show_default=True,
    help="Of all strategies.",
)
@click.option("--lr", default=0.05, show_default=True, help="Learning rate of all, unless it is searched.")
@click.option("--momentum", default=0.0, show_default=True, help="Of SGD.")
@click.option("--set", "settings", multiple=True, metavar="STRATEGY.KEY=VALUE", help="Argument of a strategy.")
@click.option(
    "--model",
    default="auto",
    show_default=True,
    help="Backbone; auto is an MLP, or the samples themselves where a strategy trains none.",
)
@click.option("--model-set", "model_settings", multiple=True, metavar="KEY=VALUE", help=SIZES)
@click.option(
    "--protocol",
    type=click.Choice(["conventional", "two-phase", "first-task"]),
    default="two-phase",
    show_default=True,
    help="How settings come about: not at all, on other data, on the first experience.",
)
@click.option("--trials", default=8, show_default=True, help="Settings tried for each strategy, where it searches.")
@click.option("--tune-on", metavar="SCENARIO", help="What two-phase searches on, instead of the known sibling.")
@click.option("--flops", type=float, help="Budget of operations for each run: it stops learning when they are used up.")
@click.option("--rehearsals", type=int, help="Budget of remembered samples trained on again, likewise.")
@click.option("--memory", type=int, help="Budget of bytes kept beside the model: memories are made as large as fits.")
@click.option("--jobs", default=2, show_default=True, help="Processes, of one thread each.")
@click.option("--ray", metavar="ADDRESS", help="Run on this Ray cluster (auto finds one, local starts one) instead.")
@click.option("--sink", "sinks", multiple=True, metavar="KIND:FOLDER", help=SINK)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("bench"),
    show_default=True,
    help="Folder of results and report; what is finished there is not run again.",
)
@DATA_ROOT
@JSON
def bench_run(**options: Any) -> None:  # noqa: ANN401
    """Train each strategy on each scenario with each seed; print metrics by definition, mean and spread."""
    from lifelong.commands import bench as command

    if not command.run(**options):
        raise SystemExit(1)


@bench.command("work", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--attempt", required=True, help="Name of the attempt: what failed in it is not tried again in it.")
@DATA_ROOT
def bench_work(**options: Any) -> None:  # noqa: ANN401
    """Work through a grid that `bench run` made, beside other processes that do the same."""
    from lifelong.commands import bench as command

    command.work(**options)


@bench.command("show")
@click.argument("folder", type=click.Path(path_type=Path))
@JSON
def bench_show(**options: Any) -> None:  # noqa: ANN401
    """Print how the strategies of a grid compare."""
    from lifelong.commands import bench_report as command

    command.show(**options)


@bench.command("report")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--sink", "sinks", multiple=True, metavar="KIND:FOLDER", help=SINK)
def bench_report(**options: Any) -> None:  # noqa: ANN401
    """Write the tables, pictures and the page of a grid anew."""
    from lifelong.commands import bench_report as command

    command.report(**options)


@bench.command("compare")
@click.argument("one", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@JSON
def bench_compare(**options: Any) -> None:  # noqa: ANN401
    """Say which cells of two grids differ; exit with 1 if any does, or if none is finished in both."""
    from lifelong.commands import bench_report as command

    if not command.compare(**options):
        raise SystemExit(1)
