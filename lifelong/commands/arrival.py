"""Before a run begins: what its samples look like, and who is told that it waits to know."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any, final

import click

from lifelong import compose, files
from lifelong.commands.watch import BEAT_SECONDS, Observer
from lifelong.following.patience import first_shape
from lifelong.release.registry import Registry
from lifelong.sources.base import Source

NOTHING: dict[str, Any] = {
    "samples": 0, "duplicates": 0, "published": 0, "refused": 0, "letters": 0, "late": 0, "step": 0, "positions": {},
    "reasons": {}, "lag": None, "model": math.nan, "recent": math.nan, "majority": math.nan, "no_change": math.nan,
}  # fmt: skip


@final
class Arrival:
    """Tells observers that a run waits for its first samples.

    Args:
        observers: Whom to tell.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers, self._due, self._said = observers, 0.0, False

    def __call__(self, why: str) -> None:
        """Tell them, about once a second.

        Args:
            why: The source is gone; empty if it only has nothing.
        """
        if not self._said:
            click.echo("waiting for the first samples, which say what all look like", err=True)
            self._said = True
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + BEAT_SECONDS
            self.beat("waiting for the first samples" + (f": {why}" if why else ""))

    def beat(self, state: str, now: bool = False) -> None:
        """Tell them how it is, in a few words."""
        for observer in self.observers:
            observer.beat({**NOTHING, "state": state}, now)


def shape(
    run_folder: Path, model: str, model_set: Sequence[str], registry: Registry | None, source: Source, stop: Event,
    arrival: Arrival, ends: bool,
) -> list[int] | None:  # fmt: skip
    """Return the shape of a sample, None if the run is to stop before it is known.

    Args:
        run_folder: A run that goes on keeps its own.
        model: Name of the backbone.
        model_set: Its arguments as they are typed; `inputs` among them says it.
        registry: Else that of the live version, unless a new one may be of another kind (then None).
        source: Else that of most of the first samples.
        stop: Set to give up.
        arrival: Told of the waiting.
        ends: Take what there is where no more comes.
    """
    path = run_folder / "run.json"
    if path.exists():
        known: list[int] = files.parse_json(files.read_file(path))["model"]["backbone"]["inputs"]
        return known
    if told := compose.parse(model_set, [model])[model].get("inputs"):
        return list(told)
    live = registry.current() if registry else None
    if registry and live is not None:
        declared: list[int] = registry.manifest(live)["input"]["shape"]
        return declared
    return first_shape(source, stop, arrival, ends)
