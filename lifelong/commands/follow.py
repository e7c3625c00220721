"""`lifelong train --source`: an endless stream, a strategy, a run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from threading import Event
from typing import Any

import click
import torch

from lifelong import compose, files
from lifelong.commands import tables
from lifelong.commands.recipe import Recipe
from lifelong.commands.train import device_of, stop_by_signal
from lifelong.daemon import Stopped
from lifelong.errors import ConfigError, LifelongError
from lifelong.following.along import END, leading
from lifelong.following.follower import Follower
from lifelong.following.publisher import Publisher
from lifelong.following.settings import Follow
from lifelong.following.trainee import Trainee
from lifelong.learning import Learner
from lifelong.learning.ranks import joined
from lifelong.plan import Plan
from lifelong.release.locate import locate as located
from lifelong.sources.base import Source
from lifelong.sources.locate import locate
from lifelong.sources.record import decode

LINE_SECONDS = 1.0  # between two lines of progress
BOUND = ("window", "kind", "dedup", "spike", "held_out_capacity", "publish_samples")  # what a run keeps to its end


def run(
    *,
    source: str | None,
    follow: Sequence[str],
    strategy: str,
    settings: Sequence[str],
    model: str,
    model_set: Sequence[str],
    run_folder: Path,
    registry: Path | str | None,
    batch_size: int,
    optimizer: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    commit_every: int,
    held_out: float,
    measure: str,
    max_accuracy_drop: float,
    max_forgetting: float,
    allow_major: bool,
    device: str,
    threads: int,
    seed: int,
    as_json: bool,
    **_: Any,  # noqa: ANN401 - options of scenarios, which mean nothing here
) -> None:
    """Follow the stream until it is told to stop; print how far it is."""
    if source is None:
        raise ConfigError("--follow says how a source is followed; name one with --source")
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)
    logging.getLogger("lifelong").setLevel(logging.WARNING)  # outages and damaged commits are said, not only logged
    told = Follow.of(compose.parse(list(follow), ["follow"])["follow"])
    plan = Plan(
        commit_every=commit_every, held_out=held_out, compatible=not allow_major, measure=measure,
        max_accuracy_drop=max_accuracy_drop, max_forgetting=max_forgetting, seed=seed,
    )  # fmt: skip
    with joined(device_of(device)) as ranks:

        def recipe(spec: Mapping[str, Any]) -> Recipe:
            return Recipe(
                strategy=strategy, settings=list(settings), model=dict(spec), optimizer=optimizer, lr=lr,
                momentum=momentum, weight_decay=weight_decay, batch_size=batch_size, held_out=held_out, seed=seed,
                device=device, threads=threads, processes=ranks.count, follow=asdict(told),
            )  # fmt: skip

        def making(spec: Mapping[str, Any]) -> Callable[[], Learner]:
            return lambda: recipe(spec).learner(ranks)

        if not ranks.first:
            stop_by_signal(Event())  # the first process says when to stop
            publisher = Publisher(None, told, plan, {}, lambda *_: None)
            publisher.share = held_out if registry else 0.0
            if (spec := ranks.told(None)) != END:
                Trainee(making(spec), told, publisher).along()
            return
        with leading(ranks), locate(source, on_gap=told.on_gap, limit=told.record_bytes) as found:
            spec = compose.model_spec(model, _shape(run_folder, found), strategy, model_set)
            about = {
                "source": PurePath(source).name, "stream": {name: getattr(told, name) for name in BOUND},
                "strategy": strategy, "settings": list(settings),
                "model": spec, "optim": f"{optimizer} lr={lr} momentum={momentum} weight_decay={weight_decay}",
                "batch_size": batch_size, "held_out": held_out, "seed": seed, **ranks.about,
            }  # fmt: skip
            where = located(registry, create=True, copy=run_folder / "registry") if registry else None
            ranks.tell(spec)
            follower = Follower(
                making(spec), found, run_folder, registry=where, plan=plan, settings=told, about=about,
                recipe=recipe(spec).plain(),
            )  # fmt: skip
            _until_stopped(follower, as_json)


def _until_stopped(follower: Follower, as_json: bool) -> None:
    stop_by_signal(follower.stop)
    follower.watch(_Lines(as_json))
    try:
        follower.run()
    except Stopped as stopped:
        click.echo(str(stopped), err=as_json)
    if as_json:
        tables.emit({"end": follower.facts()})
    else:
        tables.show("Test-then-train, and counts", ["what", "value"], list(follower.facts().items()))


class _Lines:
    """Prints what happens, and every second how far the run is."""

    def __init__(self, as_json: bool) -> None:
        self.as_json, self.last, self.seen = as_json, time.monotonic(), 0

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if kind == "step":
            if self.as_json or now - self.last < LINE_SECONDS:
                return
            rate, self.last, self.seen = (facts["samples"] - self.seen) / (now - self.last), now, facts["samples"]
            baselines = f"majority {facts['majority']:.3f}, no change {facts['no_change']:.3f}"
            click.echo(
                f"{facts['samples']} samples, {rate:.0f}/s, loss {facts['loss']:.3f}, right {facts['recent']:.3f} "
                f"({baselines}), {facts['letters']} dead letters"
            )
        elif self.as_json:
            tables.emit({kind: dict(facts)})
        elif kind in ("published", "refused"):
            click.echo(f"{kind} version {facts['version']}: {tables.checks(facts['report'])}")
        elif kind == "boundary":
            click.echo(f"window {facts['index']} ended after {facts['samples']} samples")
        elif kind == "resumed":
            self.seen = facts["samples"]
            click.echo(f"going on after {facts['samples']} samples")


def _shape(run_folder: Path, source: Source) -> list[int]:
    """Return the shape of a sample: the run's, or else that of the first one in the stream."""
    path = run_folder / "run.json"
    if path.exists():
        known: list[int] = files.parse_json(files.read_file(path))["model"]["backbone"]["inputs"]
        return known
    said = False
    while True:
        for record in source.poll(64, 1.0):
            try:
                return list(decode(record.payload, source.limit).x.shape)
            except LifelongError:
                continue  # it becomes a dead letter when the run gets to it
        if not said:
            click.echo("waiting for the first sample, which says what all look like", err=True)
            said = True
