"""The command line: parses, and imports what a command needs inside it, so that `--help` stays instant."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from lifelong.commands.bench_group import bench
from lifelong.commands.config_group import CONFIG, config, with_tables
from lifelong.commands.gallery_group import gallery
from lifelong.commands.options import DATA_ROOT, HEALTH_FILE, JSON, LOCATION, REGISTRY, SEED, SETTINGS
from lifelong.commands.registry_group import registry
from lifelong.commands.stream_group import dead, status, stream
from lifelong.commands.travel_group import diff, replay
from lifelong.errors import IN_THE_WAY, UNWRITABLE, ConfigError, LifelongError, Unavailable


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lifelong")
@click.option("--verbose", "-v", is_flag=True, help="Show what the parts log.")
def cli(verbose: bool) -> None:
    """Continual learning that is served: train on a stream, publish what the gate lets through, hot-swap it."""
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(name)s %(message)s")


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-run"), show_default=True, help="New folder.")
@click.option("--port", default=0, help="Of the server; 0 takes a free one.")
@DATA_ROOT
@SEED
@JSON
def demo(**options: Any) -> None:  # noqa: ANN401
    """Run the main job on real images: train 5 experiences, swap 5 versions under load, search across them."""
    from lifelong.commands import demo as command

    command.run(**options)


@cli.command()
@CONFIG
@click.option("--scenario", default="split-fmnist", show_default=True, help="Id of the stream: lifelong scenarios.")
@click.option("--scenario-set", multiple=True, metavar="KEY=VALUE", help="Option of the scenario, e.g. experiences=10.")
@click.option("--source", help="Follow a stream instead: a log, a folder of files, or a broker's address.")
@click.option("--follow", multiple=True, metavar="KEY=VALUE", help="How the stream is followed, e.g. window=count:500.")
@click.option("--strategy", default="replay", show_default=True, help="Plug-in, or several chained by +.")
@SETTINGS
@click.option("--model", default="mlp", show_default=True, help="Backbone: mlp, conv, identity or lite.")
@click.option("--model-set", multiple=True, metavar="KEY=VALUE", help="Argument of the backbone, e.g. hidden=[256].")
@click.option("--run", "run_folder", type=click.Path(path_type=Path), required=True, help="Folder of this run.")
@click.option("--registry", type=LOCATION, help="Where versions go: a folder or s3://...; none if not given.")
@click.option("--epochs", default=2, show_default=True, help="Passes over each experience.")
@click.option("--batch-size", default=32, show_default=True, help="New samples per step.")
@click.option("--optimizer", default="sgd", show_default=True, help="sgd, adam or adamw.")
@click.option("--lr", default=0.05, show_default=True, help="Learning rate.")
@click.option("--momentum", default=0.0, show_default=True, help="Of sgd.")
@click.option("--weight-decay", default=0.0, show_default=True, help="L2 factor.")
@click.option("--rate", multiple=True, metavar="KEY=VALUE", help="How the learning rate changes, e.g. policy=power.")
@click.option("--budget", multiple=True, metavar="KEY=VALUE", help="What a step may cost: flops, bytes, seconds.")
@click.option("--commit-every", default=50, show_default=True, help="Steps between two commits.")
@click.option("--publish-every", default=1, show_default=True, help="Experiences between two candidates.")
@click.option("--held-out", default=0.1, show_default=True, help="Share of training samples for the gate alone.")
@click.option("--measure", default="map", show_default=True, help="Of compatibility: map or recall_at_1.")
@click.option("--max-accuracy-drop", default=0.02, show_default=True, help="Share that an update may cost over all.")
@click.option("--max-forgetting", default=0.05, show_default=True, help="The same, on known classes among themselves.")
@click.option("--allow-major", is_flag=True, help="Let a version go live that cannot read older rows: a major release.")
@HEALTH_FILE
@click.option("--metrics-port", type=int, help="Serve Prometheus metrics of a stream's run; 0 takes a free port.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address for them.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, ...")
@click.option("--threads", default=1, show_default=True, help="Of torch; small models are fastest with 1.")
@DATA_ROOT
@SEED
@JSON
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401
    """Train on a scenario or a stream, committing as it goes; after a crash the same command goes on, bit for bit."""
    from lifelong.commands import follow, train

    given = options["follow"]  # what was typed wins again when the file is read again
    with_tables(ctx.meta.get("tables", {}), options)
    if options["source"] is None and not options["follow"]:
        train.run(**options)
    else:
        follow.run(given=given, **options)


@cli.command()
@click.option("--registry", type=LOCATION, required=True, help="Whose live version is served: a folder or s3://...")
@click.option("--state", type=click.Path(path_type=Path), required=True, help="Folder of the gallery.")
@click.option("--gallery", envvar="LIFELONG_GALLERY", default="", help="PostgreSQL instead of the folder: its URL.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, help="Port to listen on.")
@click.option("--insecure", is_flag=True, help="Without tokens, open writing and administration; on loopback only.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate (PEM); the server then speaks https.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key (PEM).")
def serve(**options: Any) -> None:  # noqa: ANN401
    """Serve predict, embed and search over HTTP, and swap to each version that goes live."""
    from lifelong.commands import serve as command

    command.run(**options)


@cli.command()
@click.argument("name")
@click.option(
    "--scope", default="read", show_default=True, help="read, write or admin; each may do what the former may."
)
@click.option("--file", type=click.Path(path_type=Path), help="Token file to which its line is added.")
@JSON
def token(**options: Any) -> None:  # noqa: ANN401
    """Make a bearer token for the server; shown once, stored as its SHA-256."""
    from lifelong.commands import token as command

    command.run(**options)


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Check every installed strategy.")
@JSON
def check(**options: Any) -> None:  # noqa: ANN401
    """Run the laws of continual-learning strategies on installed plug-ins."""
    from lifelong.commands import show

    show.check(**options)


@cli.command()
@JSON
def strategies(**options: Any) -> None:  # noqa: ANN401
    """List the installed strategies."""
    from lifelong.commands import show

    show.strategies(**options)


@cli.command()
@JSON
def scenarios(**options: Any) -> None:  # noqa: ANN401
    """List the scenarios by their permanent ids."""
    from lifelong.commands import show

    show.scenarios(**options)


@cli.group()
def data() -> None:
    """Find data sets."""


@data.command("list")
@DATA_ROOT
@JSON
def data_list(**options: Any) -> None:  # noqa: ANN401
    """List data sets: where they are, or the command that gets them."""
    from lifelong.commands import show

    show.data_list(**options)


@data.command("get")
@click.argument("name")
@click.option("--data-root", type=click.Path(path_type=Path), envvar="LIFELONG_DATA", help="Folder to put it in.")
@JSON
def data_get(**options: Any) -> None:  # noqa: ANN401
    """Fetch a data set through torchvision, or show the facts of one that is there."""
    from lifelong.commands import show

    show.data_get(**options)


@cli.command()
@REGISTRY
@click.option("--measure", default="map", show_default=True, help="map, recall_at_1 or recall_at_5.")
@click.option("--gallery", default="rows", show_default=True, help="rows, or templates: the mean of each class.")
@click.option("--picture", type=click.Path(path_type=Path), help="PNG file for a heat map; needs matplotlib.")
@DATA_ROOT
@JSON
def compat(**options: Any) -> None:  # noqa: ANN401
    """Measure which version's queries find what in which version's gallery, on test images."""
    from lifelong.commands import compat as command

    command.run(**options)


for command in (bench, config, gallery, registry, stream, dead, status, replay, diff):
    cli.add_command(command)


def main() -> None:
    """Run the command line; an error of ours is one line, anything else is a bug and traces."""
    try:
        sys.exit(cli.main(prog_name="lifelong", standalone_mode=False) or 0)
    except LifelongError as error:
        click.echo(f"lifelong: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno in IN_THE_WAY and error.filename is not None:
            click.echo(f"lifelong: {error}; name another path, or change what is there or who may write it", err=True)
            sys.exit(ConfigError.exit_code)
        if error.errno not in UNWRITABLE:
            raise
        click.echo(f"lifelong: {error}; what was there before is whole: make room, then do it again", err=True)
        sys.exit(Unavailable.exit_code)
    except click.Abort:
        click.echo("lifelong: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
