"""`lifelong replay` and `lifelong diff`: a version made again from its stream, and what changed between two."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch

from lifelong import compose, files
from lifelong.commands import tables
from lifelong.commands.recipe import Recipe
from lifelong.errors import ArtifactError, ConfigError
from lifelong.following.origin import made_by
from lifelong.following.replay import average, rebuilt
from lifelong.following.settings import Follow
from lifelong.learning import Learner
from lifelong.plan import Plan
from lifelong.release.difference import difference, tensors
from lifelong.release.locate import locate as located
from lifelong.release.manifest import WEIGHTS
from lifelong.release.snapshot import Snapshot
from lifelong.sources.locate import locate


def replay(*, registry: Path | str, version: int, source: str, as_json: bool) -> None:
    """Make a version again, and compare the bits."""
    found = located(registry)
    original, sealed = found.load(version), found.manifest(version)["files"][WEIGHTS]["sha256"]
    training = original.training
    if not {"recipe", "data"} <= set(training):
        raise ConfigError(
            f"version {version} does not say from which records it was made; only a run over a source does"
        )
    recipe = Recipe.of(training["recipe"])
    if not compose.budget(recipe.budget).deterministic:
        raise ConfigError("this version cannot be made again: a budget of seconds had a say in its batches")
    told = Follow.of(recipe.follow)
    torch.set_num_threads(recipe.threads)
    plan = Plan(held_out=recipe.held_out, seed=recipe.seed)
    with locate(source, limit=told.record_bytes) as stream:
        learner = rebuilt(recipe.learner, stream, training["data"], told, plan)
    average(learner, training, found, told)
    again = Snapshot.of(learner.model, learner.labels, probe_x=original.probe.x)
    sha256 = _sha256(again)
    others = [row for row in tensors(original.weights, again.weights) if row["outcome"] != "same"]
    same = sha256 == sealed and again.labels == original.labels
    elsewhere = _elsewhere(training.get("made_by", {}))
    if as_json:
        tables.emit({
            "version": version, "identical": same, "sha256": {"published": sealed, "replayed": sha256},
            "labels": [original.labels, again.labels], "tensors": others, "made_otherwise": elsewhere,
        })  # fmt: skip
    elif same:
        click.echo(f"version {version}: identical, {training['data']['records']} records, sha256 {sha256}")
    else:
        _show_tensors(f"Version {version} and what its stream gives now", others)
    if not same:
        raise ArtifactError(_refusal(version, original, learner, len(others), elsewhere))


def diff(*, one: int, other: int, registry: Path | str, as_json: bool) -> None:
    """Show what changed from one version to another."""
    found = difference(located(registry), one, other)
    if as_json:
        tables.emit(found)
        return
    moved = [row for row in found["tensors"] if row["outcome"] != "same"]
    _show_tensors(f"Weights: {len(moved)} of {len(found['tensors'])} tensors changed", moved)
    click.echo(f"labels: new {found['labels']['new'] or 'none'}, gone {found['labels']['gone'] or 'none'}")
    for part in ("data", "position", "memory", "settings", "metrics", "gate"):
        if rows := [[path, *values] for path, values in found[part].items()]:
            tables.show(part.capitalize(), ["what", f"version {one}", f"version {other}"], rows)


def _sha256(snapshot: Snapshot) -> str:
    """Return the sha256 of a snapshot's weights as they are on disk."""
    with TemporaryDirectory(prefix="lifelong-replay-") as folder:
        snapshot.save(Path(folder) / "snapshot")
        return files.sha256(Path(folder) / "snapshot" / WEIGHTS)


def _elsewhere(then: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what bits may hang on and is not as it was when the version was made."""
    now = made_by()
    return {key: [then.get(key), now[key]] for key in now if then.get(key) != now[key]}


def _refusal(version: int, original: Snapshot, learner: Learner, count: int, elsewhere: dict[str, list[Any]]) -> str:
    labels = "" if list(original.labels) == learner.labels.tolist() else " and the labels"
    why = ", ".join(f"{key} {now}, not {then}" for key, (then, now) in elsewhere.items())
    hint = f"this is {why}" if why else "is it the same stream, and the same version of every plug-in?"
    return f"version {version} is not reproduced: {count} tensors{labels} differ; {hint}"


def _show_tensors(title: str, rows: list[dict[str, Any]]) -> None:
    columns = ["name", "outcome", "shape", "relative", "values"]
    tables.show(title, columns, [["" if row[c] is None else row[c] for c in columns] for row in rows])
