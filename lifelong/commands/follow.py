"""`lifelong train --source`: an endless stream, a strategy, a run folder."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from threading import Event
from typing import Any

import click
import torch

from lifelong import compose
from lifelong.commands import tables
from lifelong.commands.arrival import Arrival, shape
from lifelong.commands.config import again
from lifelong.commands.instruments import Instruments
from lifelong.commands.recipe import Recipe
from lifelong.commands.systemd import Systemd
from lifelong.commands.train import device_of, stop_by_signal
from lifelong.commands.watch import Lines, Observer, Watch
from lifelong.daemon import Stopped
from lifelong.errors import ConfigError
from lifelong.following.along import END, leading
from lifelong.following.follower import Follower
from lifelong.following.health import NAME, Health
from lifelong.following.publisher import Publisher
from lifelong.following.saving import LOCKED
from lifelong.following.settings import Follow
from lifelong.following.trainee import Trainee
from lifelong.learning import Learner
from lifelong.learning.ranks import joined
from lifelong.locks import FileLock
from lifelong.plan import Plan
from lifelong.release.locate import locate as located
from lifelong.sources.locate import locate
from lifelong.telemetry import listen

BOUND = (
    "window", "on_drift", "kind", "dedup", "spike", "linger", "held_out_capacity", "canary",
    "merge", "merge_weight", "merge_keep",
)  # what a run keeps to its end  # fmt: skip


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
    rate: Sequence[str],
    budget: Sequence[str],
    commit_every: int,
    held_out: float,
    measure: str,
    max_accuracy_drop: float,
    max_forgetting: float,
    allow_major: bool,
    device: str,
    threads: int,
    seed: int,
    health_file: Path | None,
    metrics_port: int | None,
    metrics_host: str,
    config: Path | None,
    given: Sequence[str],
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
    besides = compose.besides(compose.optim(optimizer, lr, momentum, weight_decay, rate).rate, compose.budget(budget))
    plan = Plan(
        commit_every=commit_every, held_out=held_out, compatible=not allow_major, measure=measure,
        max_accuracy_drop=max_accuracy_drop, max_forgetting=max_forgetting, seed=seed,
    )  # fmt: skip
    with joined(device_of(device)) as ranks:

        def recipe(spec: Mapping[str, Any]) -> Recipe:
            return Recipe(
                strategy=strategy, settings=list(settings), model=dict(spec), optimizer=optimizer, lr=lr,
                momentum=momentum, weight_decay=weight_decay, rate=list(rate), budget=list(budget),
                batch_size=batch_size, held_out=held_out, seed=seed, device=device, threads=threads,
                processes=ranks.count, follow=asdict(told),
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
        with leading(ranks), locate(source, on_gap=told.on_gap, limit=told.record_bytes, patient=True) as found:
            where = located(registry, create=True, copy=run_folder / "registry") if registry else None
            observers = _observers(health_file or run_folder / NAME, metrics_port, metrics_host, as_json)
            stop, reload, arrival = Event(), Event(), Arrival(observers)
            stop_by_signal(stop)
            signal.signal(signal.SIGHUP, lambda *_: reload.set())
            run_folder.mkdir(parents=True, exist_ok=True)
            with FileLock(run_folder / ".lock", LOCKED):
                inputs = shape(run_folder, model, model_set, None if allow_major else where, found, stop, arrival,
                               told.until == "end")  # fmt: skip
            if inputs is None:
                arrival.beat("stopped", now=True)
                click.echo("stopped before the first samples; the same command begins anew")
                return
            spec = compose.model_spec(model, inputs, strategy, model_set)
            about = {
                "source": PurePath(source).name, "stream": {name: getattr(told, name) for name in BOUND},
                "strategy": strategy, "settings": list(settings),
                "model": spec, "optim": f"{optimizer} lr={lr} momentum={momentum} weight_decay={weight_decay}",
                "batch_size": batch_size, "held_out": held_out, "seed": seed, **besides, **ranks.about,
            }  # fmt: skip
            ranks.tell(spec)
            follower = Follower(
                making(spec), found, run_folder, registry=where, plan=plan, settings=told, about=about,
                recipe=recipe(spec).plain(),
            )  # fmt: skip
            watch = Watch(follower, observers, again(config, given) if config else None)
            watch.obey()
            if stop.is_set():  # a signal came in between
                follower.stop.set()
            if reload.is_set():
                os.kill(os.getpid(), signal.SIGHUP)
            _until_stopped(watch, as_json)


def _until_stopped(watch: Watch, as_json: bool) -> None:
    follower, state = watch.follower, "failed"
    try:
        follower.run()
        state = "ended"
    except Stopped as stopped:
        click.echo(str(stopped), err=as_json)
        state = "stopped"
    finally:
        watch.beat(state, ask=state != "failed", now=True)
    if as_json:
        tables.emit({"end": follower.facts()})
    else:
        tables.show("Test-then-train, and counts", ["what", "value"], list(follower.facts().items()))


def _observers(health: Path, metrics_port: int | None, metrics_host: str, as_json: bool) -> list[Observer]:
    found: list[Observer] = [Lines(as_json), Health(health, os.getpid()), Systemd()]
    if metrics_port is not None:
        instruments = Instruments()
        port = listen(instruments.telemetry, metrics_host, metrics_port)
        click.echo(f"metrics are on http://{metrics_host}:{port}/metrics", err=True)
        found.append(instruments)
    return found
