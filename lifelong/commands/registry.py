"""`lifelong registry`: versions, and which one is live."""

from __future__ import annotations

import dataclasses
import getpass
from pathlib import Path

import click

from lifelong.commands import tables
from lifelong.errors import ArtifactError
from lifelong.release.locate import locate as located
from lifelong.release.registry import Registry


def _who() -> str:
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return "cli"


def listing(*, registry: Path | str, as_json: bool) -> None:
    """List versions and events."""
    found = located(registry)
    current, events = found.current(), found.history()
    versions = [_line(found, v, current) for v in found.versions()]
    if as_json:
        rows = [{**dataclasses.asdict(e), "report": e.report.as_dict() if e.report else None} for e in events]
        tables.emit({"current": current, "versions": versions, "events": rows})
        return
    columns = ["version", "live", "level", "classes", "space", "reads", "gate"]
    tables.show(f"Versions of {registry}", columns, [[v[c] for c in columns] for v in versions])
    happened = [[e.seq, e.time, e.kind, e.version or "", e.previous or "", e.who, e.why] for e in events]
    tables.show("What happened", ["#", "time", "event", "version", "before", "who", "why"], happened)


def show(*, registry: Path | str, version: int, as_json: bool) -> None:
    """Show one version."""
    found = located(registry)
    manifest, report = found.manifest(version), found.report(version)
    if as_json:
        tables.emit({"version": version, "manifest": manifest, "report": report.as_dict() if report else None})
        return
    facts = [
        "level",
        "labels",
        "space",
        "proofs",
        "read_by",
        "input",
        "preprocessing",
        "model",
        "parent",
        "metrics",
        "sha256",
    ]
    tables.show(f"Version {version}", ["what", "value"], [[name, manifest[name]] for name in facts])
    rows = [[c.name, "yes" if c.passed else "NO", c.detail] for c in report.checks] if report else []
    tables.show("The gate", ["check", "passed", "detail"], rows)


def promote(*, registry: Path | str, version: int, why: str) -> None:
    """Make a version live."""
    located(registry).promote(version, who=_who(), why=why)
    click.echo(f"version {version} is live")


def rollback(*, registry: Path | str, to: int | None, why: str) -> None:
    """Go back."""
    version = located(registry).rollback(to, who=_who(), why=why)
    click.echo(f"version {version} is live again")


def verify(*, registry: Path | str, version: int | None, as_json: bool) -> None:
    """Verify one version or all."""
    found = located(registry)
    outcome: dict[int, str] = {}
    for number in [version] if version is not None else found.versions():
        try:
            found.verify(number)
            outcome[number] = "ok"
        except ArtifactError as error:
            outcome[number] = str(error)
    if as_json:
        tables.emit(outcome)
    else:
        tables.show(f"Verified {registry}", ["version", "outcome"], list(outcome.items()))
    damaged = [number for number, said in outcome.items() if said != "ok"]
    if damaged:
        raise ArtifactError(f"damaged: version {', '.join(map(str, damaged))}; roll back to one that verifies")


def _line(registry: Registry, version: int, current: int | None) -> dict[str, object]:
    try:
        manifest, report = registry.manifest(version), registry.report(version)
    except ArtifactError as error:
        blank = dict.fromkeys(("live", "level", "classes", "space", "reads"), "")
        return {"version": version, **blank, "gate": f"DAMAGED: {error}"}
    return {
        "version": version,
        "live": "live" if version == current else "",
        "level": manifest["level"] or "",
        "classes": len(manifest["labels"]),
        "space": manifest["space"]["id"],
        "reads": len(manifest["space"]["reads"]),
        "gate": tables.checks(report.as_dict()) if report else "no report",
    }
