"""Strategies, models and galleries are found by entry point, never by import."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lifelong.errors import ConfigError, UnknownName

KINDS = {
    "strategy": "lifelong.strategies",
    "model": "lifelong.models",
    "gallery": "lifelong.galleries",
    "scenario": "lifelong.scenarios",  # a function of a name, root=, seed= and options: a Scenario
    "runner": "lifelong.runners",  # a function of a Job and a data root: an Outcome
}


@cache
def _installed(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=KINDS[kind])}


def names(kind: str) -> list[str]:
    """Return the sorted names of all installed plug-ins of a `kind` (a key of `KINDS`)."""
    return sorted(_installed(kind))


def find(kind: str, name: str) -> Any:  # noqa: ANN401 - what a plug-in is, its kind says
    """Return the object that the plug-in `name` of `kind` points to.

    Raises:
        UnknownName: No such plug-in is installed; the message names near misses.
        ConfigError: It is installed, but cannot be imported.
    """
    points = _installed(kind)
    if name not in points:
        raise UnknownName.among(kind, name, points)
    try:
        return points[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the {kind} {name!r} ({points[name].value}) cannot be loaded: {error}") from error
