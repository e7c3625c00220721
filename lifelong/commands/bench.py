"""`lifelong bench run`: strategies on scenarios with seeds, by one protocol, in as many processes as wanted."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lifelong import compose, plugins
from lifelong.bench import overlap, tuning, workers
from lifelong.bench.cell import shape_of
from lifelong.bench.job import Job
from lifelong.bench.store import Store
from lifelong.commands import bench_report, tables
from lifelong.commands.bench_progress import progress
from lifelong.errors import ConfigError, LifelongError, NotFound, UnknownName
from lifelong.models import build
from lifelong.streams.scenarios import known
from lifelong.streams.scenarios import scenario as make_scenario

Run = Callable[[Store, Sequence[Job]], None]
Cut = tuple[str, Mapping[str, Any]]  # a scenario and its options


def run(
    *,
    strategies: str,
    scenarios: str,
    seeds: int,
    protocol: str,
    trials: int,
    tune_on: str | None,
    jobs: int,
    ray: str | None,
    out: Path,
    data_root: Path | None,
    as_json: bool,
    scenario_set: Sequence[str] = (),
    sinks: Sequence[str] = (),
    **common: Any,  # noqa: ANN401 - fields of every job
) -> bool:
    """Run what is not done yet of the grid in `out`, write and print its report; return whether nothing failed."""
    bench_report.refuse(sinks)
    streams = _streams(scenarios.split(","), scenario_set, tune_on)
    grid = _grid(strategies.split(","), streams, seeds, common)
    Store.refuse_twice(grid)
    _refuse_what_none_can_run(grid, data_root)
    attempt = secrets.token_hex(4)

    def settle(store: Store, wanted: Sequence[Job]) -> None:
        overlap.refuse_other_data(store, data_root)
        with progress(f"cells of {store.folder}", len(wanted), quiet=as_json) as tell:
            if ray is not None:
                from lifelong.adapters import ray as cluster

                cluster.run(store, wanted, ray, attempt, data_root, tell)
            else:
                _local(store, wanted, jobs, attempt, data_root, tell)

    with Store.alone(out):
        if protocol != "conventional":
            on = (tune_on, compose.cut(tune_on, scenario_set)) if tune_on else None
            grid = _tuned(grid, protocol, trials, on, out, data_root, settle)
        about = {"protocol": protocol, "trials": trials if protocol != "conventional" else 0}
        store = Store.create(out, grid, {**about, "leaks": _leaks(grid, data_root)})
        for job in grid:
            if reason := job.tuned.get("failed"):  # run with settings that nobody searched it would say they were
                store.fail(job, "failed", f"no trial of its search gave a result; the first: {reason}", attempt)
        settle(store, grid)
        bench_report.write(store, sinks)
    bench_report.show(out, as_json=as_json)
    if not as_json:
        tables.console.print(f"report: {out / 'report.html'}", soft_wrap=True)
    failed = any((failure := store.failure(job)) and failure["kind"] == "failed" for job in grid)
    return not failed and any(store.result(job) for job in grid)


def work(folder: Path, attempt: str, data_root: Path | None) -> None:
    """Work through the grid in `folder`; `run` starts processes that do this."""
    store = Store(folder)
    workers.work(store, store.jobs(), attempt, data_root)


def _streams(names: Sequence[str], settings: Sequence[str], tune_on: str | None) -> dict[str, dict[str, Any]]:
    """Return the options of each scenario; refuse what no scenario knows."""
    found = {name.strip(): compose.cut(name.strip(), settings) for name in names}
    for name in [*found, *([tune_on] if tune_on else [])]:
        known(name, compose.cut(name, settings))
    said = {text: text.partition("=")[0].rpartition(".")[0] for text in settings}
    if unused := [text for text, name in said.items() if name not in ("", *found, tune_on)]:
        raise ConfigError(f"write KEY=VALUE, or SCENARIO.KEY=VALUE of a scenario of this grid, got {unused[0]!r}")
    return found


def _grid(
    strategies: Sequence[str], streams: Mapping[str, Mapping[str, Any]], seeds: int, common: Mapping[str, Any]
) -> list[Job]:
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    settings: Sequence[str] = common["settings"]
    found = []
    for scenario, options in streams.items():
        for strategy in (name.strip() for name in strategies):
            own = _own(strategy, settings)
            _refuse(strategy, own)
            fields = {**common, "options": options, "settings": own}
            found += [Job(scenario=scenario, strategy=strategy, seed=seed, **fields) for seed in range(seeds)]
    parts = {part for strategy in strategies for part in strategy.strip().split("+")}
    if unused := {s for s in settings if s.partition(".")[0] not in parts}:
        raise ConfigError(
            f"write a setting as STRATEGY.KEY=VALUE of a strategy of this grid, got {sorted(unused)[0]!r}"
        )
    return found


def _refuse(strategy: str, own: Sequence[str]) -> None:
    """Refuse now what could not be made; what another library has, only that library knows."""
    library, colon, _ = strategy.partition(":")
    if not colon:
        compose.strategy(strategy, own)
    elif library not in plugins.names("runner"):
        raise UnknownName.among("library of strategies", library, plugins.names("runner"))


def _own(strategy: str, settings: Sequence[str]) -> tuple[str, ...]:
    """Return the settings of the parts of `strategy`; where there is one part, without its name."""
    parts = strategy.split("+")
    mine = [s for s in settings if s.partition(".")[0] in parts]
    return tuple(s.partition(".")[2] if len(parts) == 1 else s for s in mine)


def _local(
    store: Store, wanted: Sequence[Job], count: int, attempt: str, root: Path | None, tell: workers.Tell
) -> None:
    command = [sys.executable, "-m", "lifelong.cli", "bench", "work", str(store.folder), "--attempt", attempt]
    if root is not None:
        command += ["--data-root", str(root)]
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and take the workers along
    try:
        workers.crew(store, wanted, count, attempt, command, os.environ, tell)
    finally:
        signal.signal(signal.SIGTERM, before)


def _tuned(
    grid: Sequence[Job], protocol: str, trials: int, on: Cut | None, out: Path, root: Path | None, settle: Run
) -> list[Job]:
    """Search settings for each strategy on each scenario, once for all seeds; return the grid with them."""
    first: dict[tuple[str, str], Job] = {}
    for job in grid:
        first.setdefault((job.scenario, job.strategy), job)
    searches = {pair: _search(job, protocol, trials, on) for pair, job in first.items()}
    for job in {job.scenario: job for job in grid}.values():
        if protocol == "two-phase":
            _refuse_overlap(job, on or _sibling(job), root)
        else:
            _refuse_without_boundaries(job, root)
    made = [job for pair in searches for job in searches[pair]]
    store = Store.create(out / "tuning", list({job.key: job for job in made}.values()), {"protocol": protocol})
    settle(store, store.jobs())
    frozen = {}
    for pair, search in searches.items():
        tried = [(job, result) for job in search if (result := store.result(job))]
        frozen[pair] = (
            tuning.settle(first[pair], tried, protocol) if tried else _unsearched(first[pair], search, store, protocol)
        )
    return [replace(frozen[job.scenario, job.strategy], seed=job.seed) for job in grid]


def _unsearched(job: Job, search: Sequence[Job], store: Store, protocol: str) -> Job:
    """Return `job` of which no trial gave a result; where all were refused, its own reason will be reported."""
    failures = [failure for trial in search if (failure := store.failure(trial))]
    reasons = [failure["reason"] for failure in failures if failure["kind"] == "failed"]
    nothing = {"trials": 0, "score": None, **({"failed": reasons[0]} if reasons else {})}
    return replace(job, protocol=protocol, tuned=nothing)


def _search(job: Job, protocol: str, count: int, on: Cut | None) -> list[Job]:
    where = None if protocol == "first-task" else on or _sibling(job)
    return tuning.trials(job, count, on=where)  # two scenarios that are searched for alike share the trials


def _sibling(job: Job) -> Cut:
    name, options = tuning.sibling(job.scenario)
    return name, {**options, **job.options}


def _refuse_what_none_can_run(grid: Sequence[Job], root: Path | None) -> None:
    """Raise `ConfigError` where a scenario cannot be cut as told, or a backbone cannot be made as told."""
    for job in {job.scenario: job for job in reversed(grid)}.values():
        try:
            shape = shape_of(make_scenario(job.scenario, root, job.seed, **job.options))
        except ConfigError:
            raise
        except LifelongError:  # data that are not there: its cells will fail, and say why
            continue
        build(compose.model_spec("mlp" if job.model == "auto" else job.model, shape, "naive", job.model_settings))


def _leaks(grid: Sequence[Job], root: Path | None) -> dict[str, Any]:
    """Return for each scenario which of its test samples are among its training samples, and say so."""
    found: dict[str, Any] = {}
    for name, job in {job.scenario: job for job in reversed(grid)}.items():
        try:
            found[name] = overlap.report(make_scenario(name, root, 0, **job.options))
        except LifelongError as error:  # its cells will fail, and say why
            found[name] = {"reason": str(error)}
        if count := found[name].get("leaked"):
            ids = found[name]["train_and_test_ids"][0]
            said = f"{name}: {count} test samples are training samples too, such as {ids[1]}, which is {ids[0]}"
            click.echo(f"lifelong: {said}; named in the report", err=True)
    return found


def _refuse_without_boundaries(job: Job, root: Path | None) -> None:
    try:
        provides = make_scenario(job.scenario, root, 0, **job.options).provides
    except LifelongError:  # its cells will fail, and say why
        return
    if "boundaries" not in provides:
        raise ConfigError(
            f"first-task searches on the first experience, and {job.scenario} has no boundaries: its first is a few "
            "samples, of which nothing can be known before; choose two-phase or conventional"
        )


def _refuse_overlap(job: Job, on: Cut, root: Path | None) -> None:
    name, options = on
    try:
        searched = make_scenario(name, root, 0, **options)
    except NotFound as error:
        raise NotFound(
            f"settings for {job.scenario} are searched on {name}, and {error}; "
            "or search on another scenario (--tune-on), or choose another --protocol"
        ) from error
    judged = make_scenario(job.scenario, root, 0, **job.options)
    overlap.refuse_unlike(searched, judged)
    overlap.refuse_shared(searched, judged)
