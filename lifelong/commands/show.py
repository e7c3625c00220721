"""`lifelong check`, `strategies`, `scenarios` and `data`: what there is, and whether it obeys."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import click

from lifelong import data, plugins
from lifelong.commands import tables
from lifelong.errors import ConfigError


def strategies(*, as_json: bool) -> None:
    """List strategies."""
    rows = []
    for name in plugins.names("strategy"):
        kind = plugins.find("strategy", name)
        needs = kind.needs
        wants = [f for f in ("boundaries", "task_id", "known_classes", "epochs") if getattr(needs, f)]
        about = (inspect.getdoc(kind) or "").split("\n")[0]
        arguments = {p.name: p.default for p in inspect.signature(kind).parameters.values() if p.name != "self"}
        scenarios_for = sorted(needs.scenarios)
        facts = {"needs": wants, "scenarios": scenarios_for, "distributed": needs.distributed}
        rows.append({"name": name, "about": about, "arguments": arguments, **facts})
    if as_json:
        tables.emit(rows)
        return
    listed = [[r["name"], r["about"], ", ".join(f"{k}={v}" for k, v in r["arguments"].items())] for r in rows]
    tables.show("Strategies", ["name", "what it does", "arguments"], listed)


def scenarios(*, as_json: bool) -> None:
    """List scenarios."""
    from lifelong.streams.scenarios import SCENARIOS

    rows = [{"name": name, "about": r.about, "data": r.data} for name, r in SCENARIOS.items()]
    if as_json:
        tables.emit(rows)
    else:
        tables.show("Scenarios", ["name", "what arrives", "data"], [list(r.values()) for r in rows])


def data_list(*, data_root: Path | None, as_json: bool) -> None:
    """List data sets."""
    rows = data.available(data_root)
    if as_json:
        tables.emit([{"name": r.name, "found": r.found, "where": r.where, "counts": r.counts} for r in rows])
        return
    listed = [
        [r.name, "yes" if r.found else "no", r.where, ", ".join(f"{k} {v}" for k, v in r.counts.items())] for r in rows
    ]
    tables.show("Data sets", ["name", "here", "where, or how to get it", "samples"], listed)


def data_get(*, name: str, data_root: Path | None, as_json: bool) -> None:
    """Fetch a data set, or show one that is there."""
    facts = data.load(name, root=data_root, download=data_root is not None).facts()
    if as_json:
        tables.emit(facts)
    else:
        tables.show(name, ["what", "value"], list(facts.items()))


def check(*, names: Sequence[str], every: bool, as_json: bool) -> None:
    """Run the laws; exit 1 if one is broken."""
    from lifelong import checks

    chosen = plugins.names("strategy") if every else list(names)
    if not chosen:
        raise ConfigError("name a strategy to check, or use --all; lifelong strategies lists them")
    verdicts = {name: checks.check(name) for name in chosen}
    rows = [[name, v.law, v.outcome, v.why] for name, found in verdicts.items() for v in found]
    if as_json:
        tables.emit([{"strategy": r[0], "law": r[1], "outcome": r[2], "why": r[3]} for r in rows])
    else:
        tables.show("Laws", ["strategy", "law", "outcome", "why"], rows)
    if any(row[2] == "broken" for row in rows):
        raise click.exceptions.Exit(1)
