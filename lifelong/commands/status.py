"""`lifelong status`: how far a run is, read from its newest commit; the run is not disturbed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lifelong.commands import tables
from lifelong.errors import NotFound
from lifelong.following import health
from lifelong.following.canary import Canary
from lifelong.learning.checkpoint import Checkpoints
from lifelong.learning.prequential import Prequential


def run(*, run_folder: Path, health_file: Path | None, as_json: bool) -> None:
    """Print counts, figures and positions of the newest commit, how old it is, who is running, and its health."""
    folder = run_folder / "checkpoints"
    told = health.read(health_file or run_folder / health.NAME)
    if not folder.is_dir() and told is not None:  # it waits for its first samples
        facts = {"running": _holder(run_folder / ".lock"), "state": told["state"], "health_age_seconds": told["age"]}
        tables.emit(facts) if as_json else tables.show(f"{run_folder}", ["what", "value"], list(facts.items()))
        return
    if not folder.is_dir():
        raise NotFound(f"there is no run in {run_folder}; name the folder given to lifelong train --run")
    commits = Checkpoints(folder)
    state = commits.latest()
    if state is None:
        raise NotFound(f"{run_folder} has no commit yet")
    age = time.time() - (folder / f"{commits.numbers()[-1]:08d}").stat().st_mtime
    facts = {"running": _holder(run_folder / ".lock"), "commit": commits.numbers()[-1], "commit_age_seconds": age}
    if told is not None:
        facts |= {"state": told["state"], "health_age_seconds": told["age"], "lag": told["lag"]}
    facts |= _of_stream(state) if "intake" in state else _of_scenario(state)
    if as_json:
        tables.emit(facts)
    else:
        tables.show(f"{run_folder}", ["what", "value"], list(facts.items()))


def _of_stream(state: dict[str, Any]) -> dict[str, Any]:
    figures = Prequential()
    figures.restore(state["prequential"])
    canary = Canary(1)
    canary.restore(state["canary"])
    publisher, intake = state["publisher"], state["intake"]
    return {
        **state["learner"]["counters"], **intake["counts"], "labels": len(state["learner"]["labels"]),
        "window": state["windows"]["index"], "letters": len(intake["dead"]["letters"]), "version": publisher["last"],
        "published": publisher["published"], "refused": publisher["refused"], "halted": intake.get("halted", 0.0),
        **figures.figures(), **canary.figures(),
        "positions": intake["positions"],
    }  # fmt: skip


def _of_scenario(state: dict[str, Any]) -> dict[str, Any]:
    learner, versions = state["learner"], state["progress"]["versions"]
    return {**learner["counters"], "experience": learner["position"]["experience"], "versions": len(versions)}


def _holder(path: Path) -> int | None:
    """Return the number of the process that holds a lock, None if nobody does, or if this is not Linux."""
    locks = Path("/proc/locks")  # trying to take it could refuse a trainer that starts just then
    if not path.exists() or not locks.exists():
        return None
    mine = f":{path.stat().st_ino} "
    held = any("FLOCK" in line and mine in line for line in locks.read_text().splitlines())
    return int(path.read_text() or 0) if held else None
