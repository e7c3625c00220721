"""`lifelong train`: a scenario, a strategy, a run folder."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lifelong import compose
from lifelong.bench import metrics
from lifelong.commands import tables
from lifelong.daemon import Stopped, Trainer
from lifelong.errors import ConfigError
from lifelong.learning import Learner
from lifelong.learning.ranks import joined
from lifelong.models import build
from lifelong.plan import Plan
from lifelong.release.locate import locate as located
from lifelong.streams.scenario import Scenario
from lifelong.streams.scenarios import known
from lifelong.streams.scenarios import scenario as make_scenario
from lifelong.types import Batch


def run(
    *,
    scenario: str,
    scenario_set: Sequence[str],
    strategy: str,
    settings: Sequence[str],
    model: str,
    model_set: Sequence[str],
    run_folder: Path,
    registry: Path | str | None,
    epochs: int,
    batch_size: int,
    optimizer: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    rate: Sequence[str],
    budget: Sequence[str],
    commit_every: int,
    publish_every: int,
    held_out: float,
    measure: str,
    max_accuracy_drop: float,
    max_forgetting: float,
    allow_major: bool,
    device: str,
    threads: int,
    data_root: Path | None,
    seed: int,
    as_json: bool,
    **_: Any,  # noqa: ANN401 - options of streams, which mean nothing here
) -> None:
    """Train, or go on; print the accuracy matrix, metrics by name, and what became of each candidate."""
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)
    known(scenario, options := compose.cut(scenario, scenario_set))
    stream = make_scenario(scenario, data_root, seed, **options)
    spec = compose.model_spec(model, sample_shape(stream), strategy, model_set)
    optim, spending = compose.optim(optimizer, lr, momentum, weight_decay, rate), compose.budget(budget)
    plan = Plan(
        epochs=epochs,
        commit_every=commit_every,
        held_out=held_out,
        publish_every=publish_every,
        compatible=not allow_major,
        measure=measure,
        max_accuracy_drop=max_accuracy_drop,
        max_forgetting=max_forgetting,
        seed=seed,
    )
    about = {
        "strategy": strategy,
        "settings": list(settings),
        "model": spec,
        "optim": f"{optimizer} lr={lr} momentum={momentum} weight_decay={weight_decay}",
        "batch_size": batch_size,
        "epochs": epochs,
        "held_out": held_out,
        "seed": seed,
        **compose.besides(optim.rate, spending),
    }
    with joined(device_of(device)) as ranks:
        learner = Learner(
            build(spec, seed=seed),
            compose.strategy(strategy, settings, seed=seed),
            optim=optim,
            batch_size=batch_size,
            seed=seed,
            device=device_of(device),
            budget=spending,
            setting=stream,
            ranks=ranks,
        )
        where = None
        if registry and ranks.first:
            where = located(registry, create=True, copy=run_folder / "registry")
        trainer = Trainer(learner, stream, run_folder, registry=where, plan=plan, about={**about, **ranks.about})
        stop_by_signal(trainer.stop)
        try:
            progress = trainer.run() if as_json or not ranks.first else _watched(trainer, stream)
        except Stopped as stopped:
            if ranks.first:
                tables.console.print(str(stopped))
            return
    if ranks.first:
        _report(progress.matrix, progress.versions, stream, as_json)


def stop_by_signal(stop: Event) -> None:
    """Have SIGTERM and SIGINT set `stop`; of several processes the first one's counts."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def sample_shape(stream: Scenario) -> tuple[int, ...]:
    """Return the shape of one sample of a stream."""
    first = stream[0].train
    x = first.x if isinstance(first, Batch) else next(iter(first))[0]
    return tuple(x.shape[1:] if isinstance(first, Batch) else x.shape)


def bar() -> Progress:
    """Return the progress bar of a run."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        console=tables.console,
    )


def _watched(trainer: Trainer, stream: Scenario) -> Any:  # noqa: ANN401
    with bar() as display:
        task = display.add_task("experiences", total=len(stream), facts="")

        def tell(kind: str, facts: Mapping[str, Any]) -> None:
            if kind == "step" and facts["steps"] % 10 == 0:
                display.update(task, facts=f"step {facts['steps']}, rehearsed {facts['rehearsed']}")
            elif kind == "experience":
                display.update(task, completed=facts["index"] + 1)
            elif kind in ("published", "refused"):
                display.console.print(f"{kind} version {facts['version']}: {tables.checks(facts['report'])}")
            elif kind == "resumed":
                display.console.print(f"going on from step {facts['steps']}")
                display.update(task, completed=facts["experience"])

        trainer.watch(tell)
        return trainer.run()


def _report(matrix: list[list[float]], versions: list[dict[str, Any]], stream: Scenario, as_json: bool) -> None:
    square = len(matrix) == len(matrix[0]) if matrix else False
    numbers = metrics.summary(torch.tensor(matrix, dtype=torch.float64)) if square else {}
    if as_json:
        tables.emit({"scenario": stream.signature, "matrix": matrix, "metrics": numbers, "versions": versions})
        return
    tables.matrix("Accuracy on experience j after learning i (test split)", matrix, "after", "", "exp ")
    if numbers:
        tables.show("Metrics by definition", ["metric", "value"], list(numbers.items()))


def device_of(name: str) -> torch.device:
    """Return the device of that name; raise `ConfigError` if it is not there."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} is not there: {str(error).splitlines()[0]}; use cpu") from error
    return device
